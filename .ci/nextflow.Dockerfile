# Nextflow from Maven Central, and what its tasks need: where the official image cannot be pulled.
ARG BASE
FROM ${BASE}
COPY bin/nextflow /usr/local/bin/nextflow
COPY lib/nextflow /usr/local/lib/nextflow
ENV NXF_OPTS="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# Its launcher is offline unless told: Nextflow would clone nothing.
ENV NXF_OFFLINE=false
USER 1000
