"""The race harness: whether the promises of docs/consistency.md hold while everything goes wrong at once. ../run is how it is used.

    history    what was written, acknowledged and read, by key; a read that breaks a promise is a Violation
    arena      two regions, each with two sidecars and two nodes, a primary, a replica, a bus each
    wire       a pipelining client
    traffic    writers and readers
    faults     a seeded schedule of faults, and who commits them
    scenarios  one deterministic race for each guard
    session    scenarios, then traffic under faults, then quiet; what was found
    report     everything that is known about a violation
"""
