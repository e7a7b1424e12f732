// Fails: its only task exits with 3.

process FAIL {
    script:
    """
    echo 'to stdout'
    echo 'to stderr' >&2
    exit 3
    """
}

workflow {
    FAIL()
}
