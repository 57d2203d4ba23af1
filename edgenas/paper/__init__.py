"""The tables and figures of the HW-EvRSNAS paper, made again: what `edgenas paper` does.

`figure` says what each is, and `job` which there are; one module makes one of them. `searches` are those that several
rest on, `written` is how all are printed, written and drawn. Beside each number that the paper's text states stands
ours, and in what the set-up differs.
"""
