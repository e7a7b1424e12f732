{{/* Short enough for what is put behind it. */}}
{{- define "fullname" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- .Values.fullnameOverride | default $name | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "runs" -}}
{{- .Values.runs.namespace | default (printf "%s-runs" .Release.Namespace) -}}
{{- end }}

{{/* The name that the functions are called by. */}}
{{- define "host" -}}
{{- .Values.gateway.enabled | ternary .Values.gateway.host .Values.ingress.host -}}
{{- end }}

{{- define "url" -}}
{{- $tls := .Values.gateway.enabled | ternary .Values.gateway.tls (not (empty .Values.ingress.tlsSecret)) -}}
{{- printf "%s://%s" (ternary "https" "http" $tls) (include "host" .) -}}
{{- end }}

{{/* Where a function is called, as JSON. Nothing is rewritten: it answers at the path it is called by. */}}
{{- define "paths" -}}
{{- eq . "docs" | ternary (list "/docs" "/follow" "/openapi.json") (list (print "/api/v1/pipeline/" .)) | toJson -}}
{{- end }}

{{/* A function's values over those of all: (list . "status"). */}}
{{- define "function" -}}
{{- $root := index . 0 -}}
{{- mergeOverwrite (deepCopy $root.Values.defaults) (get $root.Values.functions (index . 1)) | toYaml -}}
{{- end }}

{{- define "image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end }}

{{- define "tokens" -}}
{{- .Values.auth.existingSecret | default (printf "%s-tokens" (include "fullname" .)) -}}
{{- end }}

{{- define "redisSecret" -}}
{{- .Values.redis.existingSecret | default (printf "%s-redis" (include "fullname" .)) -}}
{{- end }}

{{/* The users of the chart's own Redis: all that the functions do in it, and that recorders do. */}}
{{- define "redisPrefix" -}}
{{- get .Values.settings "REDIS_PREFIX" | default "nfc" -}}
{{- end }}

{{- define "redisRights" -}}
resetkeys resetchannels ~{{ include "redisPrefix" . }}:* -@all +ping +evalsha +script|load +time +get +getdel +set +del +exists +expire +incrby +hdel +hget +hgetall +hmget +hset +zadd +zcard +zrange +zrangebylex +zrem +zrevrangebylex +xadd +xtrim +xinfo|stream +xrange +xread +xrevrange
{{- end }}

{{- define "recorderRights" -}}
resetkeys resetchannels ~{{ include "redisPrefix" . }}:log:* -@all +ping +evalsha +script|load +xadd +xtrim +expire +xinfo|stream +xrevrange
{{- end }}

{{/* The Secret of the runs' namespace by which recorders reach Redis. Empty: there are no recorders. */}}
{{- define "recorderSecret" -}}
{{- $own := and .Values.redis.enabled (not .Values.redis.existingSecret) -}}
{{- $own | ternary (printf "%s-recorder" (include "fullname" .)) .Values.redis.recorderSecret -}}
{{- end }}

{{- define "archiveSecret" -}}
{{- .Values.archive.existingSecret | default (printf "%s-archive" (include "fullname" .)) -}}
{{- end }}

{{- define "workClaim" -}}
{{- .Values.work.existingClaim | default (printf "%s-work" (include "fullname" .)) -}}
{{- end }}

{{/* How long a stopping function waits for its answers: for a DELETE too, which waits for its run to be gone. */}}
{{- define "graceSeconds" -}}
{{- get .Values.settings "SHUTDOWN_GRACE_SECONDS" | default "30" -}}
{{- end }}

{{/* The files of an external Redis' TLS, by the variables that name them, as JSON. */}}
{{- define "redisFiles" -}}
{{- $authority := .Values.redis.tls.ca | ternary (dict "REDIS_CA_FILE" "ca.crt") dict -}}
{{- $own := .Values.redis.tls.certificate | ternary (dict "REDIS_CERT_FILE" "tls.crt" "REDIS_KEY_FILE" "tls.key") dict -}}
{{- merge $authority $own | toJson -}}
{{- end }}

{{/* What is mounted for a function: (list . "status"). */}}
{{- define "files" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.auth.mode "tokens" }}
- secret: {name: {{ include "tokens" $root }}, items: [{key: tokens, path: tokens}]}
{{- end }}
{{- with include "redisFiles" $root | fromJson }}
- secret:
    name: {{ $root.Values.redis.externalSecret }}
    items:
      {{- range . }}
      - {key: {{ . }}, path: redis/{{ . }}}
      {{- end }}
{{- end }}
{{- end }}

{{/* Of a component: (list . "status"). */}}
{{- define "selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "labels" -}}
{{- $root := index . 0 -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* Pod Security `restricted`, and more. */}}
{{- define "podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What every function sees of the release: (list . "status"). */}}
{{- define "environment" -}}
{{- $root := index . 0 -}}
env:
  - {name: PORT, value: "8080"}
  {{- if $root.Values.redis.enabled }}
  - name: REDIS_PASSWORD
    valueFrom: {secretKeyRef: {name: {{ include "redisSecret" $root }}, key: password}}
  {{- end }}
  {{- if and $root.Values.archive.enabled (has (index . 1) (list "status" "stream")) }}
  - name: ARCHIVE_TOKEN
    valueFrom: {secretKeyRef: {name: {{ include "archiveSecret" $root }}, key: archive-token}}
  {{- end }}
envFrom:
  - configMapRef: {name: {{ include "fullname" $root }}}
  {{- if not $root.Values.redis.enabled }}
  - secretRef: {name: {{ $root.Values.redis.externalSecret }}}
  {{- end }}
{{- end }}

{{- define "mounts" -}}
{{- with include "files" . }}
volumeMounts: [{name: files, mountPath: /etc/nextflow-controller, readOnly: true}]
{{- end }}
{{- end }}

{{- define "volumes" -}}
{{- with include "files" . }}
volumes:
  - name: files
    projected:
      sources: {{- trim . | nindent 8 }}
{{- end }}
{{- end }}

{{- define "probes" -}}
# Alive before ready: that the cluster is away ends no pod.
startupProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 60}
livenessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 10, timeoutSeconds: 5}
# Longer than Redis may take to be found away: the function answers without it.
readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 5, timeoutSeconds: 8}
lifecycle: {preStop: {sleep: {seconds: {{ .Values.stopDelaySeconds }}}}}
{{- end }}

{{/* For how long a pod may go on once it is to end. */}}
{{- define "terminationSeconds" -}}
{{- add .Values.stopDelaySeconds (include "graceSeconds" . | float64 | ceil) 5 -}}
{{- end }}

{{- define "placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Of network policies. */}}
{{- define "dnsPorts" -}}
- {port: 53, protocol: UDP}
- {port: 53, protocol: TCP}
{{- end }}

{{/* It is no pod that could be chosen, and its address is the cluster's own. */}}
{{- define "apiServerPorts" -}}
{{- range .Values.networkPolicies.apiServerPorts }}
- {port: {{ . }}}
{{- end }}
{{- end }}

{{- define "toRedis" -}}
{{- if .Values.redis.enabled -}}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
      podSelector:
        matchLabels: {{- include "selector" (list . "redis") | nindent 10 }}
  ports: [{port: 6379}]
{{- else -}}
- ports:
    {{- range .Values.networkPolicies.redisPorts }}
    - {port: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}
