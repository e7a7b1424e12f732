#!/usr/bin/env nextflow

// Splits a list of greetings, composes and counts a text of each on its own, and reports the counts.
// Keeps to the syntax that Nextflow 22.10, 24.10 and 26 (strict parser) have in common.

params.title = 'Greetings of the world'
params.greetings = ['Hello', 'Bonjour', 'Hola', 'Ciao', 'Grüezi', 'Saluton']
params.lines = 100
params.shout = false
params.delay_seconds = 1
params.fail = false
params.outdir = 'results'

// A parameter may hold anything; quoted, the shell of a task takes it literally.
def quote(text) {
    return "'" + text.toString().replace("'", "'\\''") + "'"
}

process SPLIT {
    input:
    val greetings
    val delay_seconds

    output:
    path 'sample_*.txt'

    script:
    """
    sleep ${delay_seconds}
    number=0
    for greeting in ${greetings.collect { greeting -> quote(greeting) }.join(' ')}; do
        number=\$((number + 1))
        printf '%s\\n' "\$greeting" > sample_\$number.txt
    done
    """
}

process COMPOSE {
    tag "${sample.baseName}"
    debug true

    input:
    path sample
    val lines
    val delay_seconds

    output:
    path "${sample.baseName}.text"

    script:
    """
    sleep ${delay_seconds}
    for number in \$(seq ${lines}); do
        cat ${sample}
    done > ${sample.baseName}.text
    echo "\$(date -u +%Y-%m-%dT%H:%M:%SZ) composed ${lines} lines of ${sample.baseName}"
    """
}

process COUNT {
    tag "${text.baseName}"
    debug true

    input:
    path text
    val fail
    val delay_seconds

    output:
    path "${text.baseName}.count"

    script:
    """
    sleep ${delay_seconds}
    if ${fail && text.baseName == 'sample_1'}; then
        echo "params.fail says so" >&2
        exit 1
    fi
    printf '%s\\t%s\\n' "\$(wc -c < ${text})" "\$(head -n 1 ${text})" > ${text.baseName}.count
    echo "\$(date -u +%Y-%m-%dT%H:%M:%SZ) counted ${text.baseName}"
    """
}

process REPORT {
    publishDir "${params.outdir}", mode: 'copy'

    input:
    path counts
    val title
    val delay_seconds

    output:
    path 'report.txt'

    script:
    """
    sleep ${delay_seconds}
    {
        printf '%s\\n' ${quote(title)}
        sort -k 2 ${counts}
        awk '{ bytes += \$1 } END { print bytes "\\tbytes in all" }' ${counts}
    } > report.txt
    """
}

workflow {
    def greetings = params.greetings.collect { greeting -> params.shout ? greeting.toUpperCase() : greeting }
    log.info "${params.title}: ${greetings.size()} greetings, ${params.lines} lines each"

    samples = SPLIT(greetings, params.delay_seconds).flatten()
    texts = COMPOSE(samples, params.lines, params.delay_seconds)
    counts = COUNT(texts, params.fail, params.delay_seconds)
    counts.view { count -> "bytes: ${count.text.trim()}" }

    report = REPORT(counts.toSortedList { a, b -> a.name <=> b.name }, params.title, params.delay_seconds)
    report.view { page -> page.text.trim() }
}
