// Sleeps in every way that may outlive a careless cancel: in the task's own process, in its background, in a
// session of its own, without its environment, and with all parents gone. `seconds` marks the processes: give a
// number that nothing else on the machine sleeps for (3600.25).

params.tasks = 2
params.seconds = 3600

process SLEEP {
    input:
    val number
    val seconds

    script:
    """
    sleep ${seconds} &
    setsid sleep ${seconds} &
    env -i /usr/bin/env sleep ${seconds} &
    ( setsid env -i /usr/bin/env sleep ${seconds} & )
    sleep ${seconds}
    """
}

workflow {
    SLEEP(channel.of(1..params.tasks), params.seconds)
}
