"""What tests/bench/run and tests/bench/loads are made of.

In the order in which one builds on the other:

    workloads   what is measured, as a table
    machine     this machine: description, which processor is for whom, who else uses it
    servers     the nodes and the peers of a workload, started and pinned
    load        one run of the load generator
    figures     medians, ratios within a round, spreads
    measure     rounds of runs, alternating between the peers
    targets     what issue 2 asks for, against what was measured
    report      Markdown

And of tests/bench/loads:

    missing     clients that ask for keys no node has
    herd        readers while the database is away, and when it is back
"""
