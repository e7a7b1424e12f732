{{/* Short enough for what is put behind it. */}}
{{- define "fullname" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- .Values.fullnameOverride | default $name | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "runs" -}}
{{- if eq .Values.runs.namespace .Release.Namespace }}
{{- fail "runs.namespace is the release's own: runs may do what they like in theirs, so it has to be another" }}
{{- end -}}
{{- .Values.runs.namespace | default (printf "%s-runs" .Release.Namespace) -}}
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

{{/* All that the functions do in Redis. */}}
{{- define "redisRights" -}}
resetkeys resetchannels ~{{ get .Values.settings "REDIS_PREFIX" | default "nfc" }}:* -@all +ping +evalsha +script|load +time +get +getdel +set +del +exists +expire +incrby +hget +hmget +hset +zadd +zcard +zrange +zrangebylex +zrem +zrevrangebylex +xadd +xinfo|stream +xrange +xread +xrevrange
{{- end }}

{{- define "workClaim" -}}
{{- .Values.work.existingClaim | default (printf "%s-work" (include "fullname" .)) -}}
{{- end }}

{{/* How long a stopping function waits for its answers: for a DELETE too, which waits for its run to be gone. */}}
{{- define "graceSeconds" -}}
{{- get .Values.settings "SHUTDOWN_GRACE_SECONDS" | default "30" -}}
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
