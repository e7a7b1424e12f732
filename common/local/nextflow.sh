#!/usr/bin/env bash
# Starts the Nextflow that toolchain.py laid out: this file is bin/nextflow, the jars of ../lib stand in the order of
# ../lib/classpath.
# It becomes the JVM (exec): whoever starts it has the JVM's own process id, and descriptors left open for it
# stay open.
set -euo pipefail

lib=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")/lib
home=${NXF_JAVA_HOME:-${JAVA_HOME:-}}
java=${JAVA_CMD:-${home:+$home/bin/}java}

classpath=
while read -r jar; do
  classpath+=${classpath:+:}$lib/$jar
done < "$lib/classpath"

export NXF_HOME=${NXF_HOME:-$HOME/.nextflow}
mkdir -p "$NXF_HOME" # Nextflow makes the last directory of the path only
export NXF_ORG=${NXF_ORG:-nextflow-io}
export NXF_CLI="$0 $*"
# There are no plugins in these jars. It is not offline, though: Nextflow would clone no pipeline.
export NXF_PLUGINS_MODE=${NXF_PLUGINS_MODE:-prod}
export NXF_PLUGINS_DEFAULT=${NXF_PLUGINS_DEFAULT:-false}
unset JAVA_TOOL_OPTIONS # the JVM would announce it between the lines of the run

flags=(-Dfile.encoding=UTF-8 -Djava.awt.headless=true ${NXF_TEMP:+"-Djava.io.tmpdir=$NXF_TEMP"})
flags+=(-Xlog:disable -Xlog:all=warning:stderr) # the JVM would put its own warnings between the lines of the run, too
for package in java.lang java.io java.nio java.net java.util java.util.concurrent.locks \
  java.util.concurrent.atomic java.util.regex java.nio.file.spi sun.nio.ch sun.nio.fs \
  sun.net.www.protocol.{http,https,ftp,file} jdk.internal.{misc,vm}; do
  flags+=("--add-opens=java.base/$package=ALL-UNNAMED")
done

# shellcheck disable=SC2086 # both are lists of words
exec "$java" "${flags[@]}" ${NXF_OPTS:-} ${NXF_JVM_ARGS:-} -cp "$classpath" nextflow.cli.Launcher "$@"
