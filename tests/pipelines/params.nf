// Prints all parameters, as they arrived, as one line of JSON.

workflow {
    println "params: ${groovy.json.JsonOutput.toJson(params)}"
}
