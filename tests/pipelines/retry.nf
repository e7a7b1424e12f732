// Succeeds at the second attempt.

process FLAKY {
    errorStrategy 'retry'
    maxRetries 1

    script:
    """
    echo 'attempt ${task.attempt}'
    test ${task.attempt} -eq 2
    """
}

workflow {
    FLAKY()
}
