{{/* The prefix of all names: the name of the release. */}}
{{- define "uplift.name" -}}
{{ .Release.Name | trunc 45 | trimSuffix "-" }}
{{- end }}

{{/* The labels of all objects. */}}
{{- define "uplift.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The labels that select the Pods of a component. Parameters: root, component. */}}
{{- define "uplift.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The image, by digest or by tag. */}}
{{- define "uplift.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* Settings that cannot be in `settings`, because they can contain secrets. A test compares them with the server's settings. */}}
{{- define "uplift.secretSettings" -}}
UPLIFT_DATABASE_URL UPLIFT_DATABASE_DIRECT_URL UPLIFT_NATS_URL UPLIFT_OPERATOR_KEY UPLIFT_SECRET_KEY UPLIFT_SMTP_URL UPLIFT_EGRESS_PROXY UPLIFT_METRICS_TOKEN UPLIFT_OIDC_CLIENT_SECRET UPLIFT_OTLP_ENDPOINT
{{- end }}

{{/* The data of the ConfigMap of settings. */}}
{{- define "uplift.settings" -}}
{{- $secret := splitList " " (include "uplift.secretSettings" .) -}}
{{- range $name, $value := .Values.settings }}
{{- if has $name $secret }}
{{- fail (printf "settings.%s can contain a secret. Put it into a Secret, and name the Secret in secrets.%s." $name $name) }}
{{- else if eq $name "UPLIFT_PORT" }}
{{- fail "settings.UPLIFT_PORT cannot be set: the server always uses port 8420 in its Pods. Remove the setting, and set service.port or ingress instead." }}
{{- end }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Additional environment variables. Settings of the server belong in `settings` or `secrets`. */}}
{{- define "uplift.extraEnv" -}}
{{- range .Values.extraEnv }}
{{- if hasPrefix "UPLIFT_" .name }}
{{- fail (printf "extraEnv cannot contain %s. Put it into settings.%s, or name a Secret in secrets.%s." .name .name .name) }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Check the limits of an autoscaler before the Job `migrate` runs. Parameters: name, autoscaling. */}}
{{- define "uplift.checkReplicas" -}}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) }}
{{- fail (printf "%s.minReplicas (%v) is more than %s.maxReplicas (%v). Increase maxReplicas." .name .autoscaling.minReplicas .name .autoscaling.maxReplicas) }}
{{- end }}
{{- end }}

{{/* The annotations of objects that the Job `migrate` needs. Helm deletes them after the Job. */}}
{{- define "uplift.beforeMigrate" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: "-1"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
