"""Real servers on loopback, for the demo (deploy/demo) and the end-to-end tests (tests/e2e).

In the order in which one builds on the other:

    paths      where things are in the tree
    ports      free ports
    wait       waiting for a condition, with a deadline; parallel: several things at once
    process    one child process: its log, its life and its end
    account    as whom a server runs when we are root
    memcached, nats, mariadb, outrigger
               one server each, over process
    yaml_text, metrics
               what outrigger reads and what it tells
    region     one region: a nats-server, memcached nodes, sidecars
    cluster    a primary database, its replica, and regions; started in parallel, torn down in reverse
    signals    SIGTERM as an exception

    console, catalogue, walk, demo
               the demo alone

Every server binds 127.0.0.1 only, keeps all its files in the directory that its creator names, is a child of this
process and does not outlive it, however this process ends. Use: put deploy/ on sys.path and `from local.cluster
import Cluster`. Only the standard library and pymysql are needed; the walk needs pymemcache too.
"""
