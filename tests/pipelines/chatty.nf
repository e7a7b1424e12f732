// Prints numbered lines: for followers, reconnects and restarts in the middle of a run.

params.lines = 100
params.pause_ms = 10

workflow {
    channel.of(1..params.lines)
        .map { number ->
            sleep(params.pause_ms)
            number
        }
        .view { number -> "line ${number}" }
}
