{{- define "gomem.name" -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "gomem.selector" -}}
app.kubernetes.io/name: gomem
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gomem.labels" -}}
{{ include "gomem.selector" . }}
app.kubernetes.io/part-of: gomem
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "gomem.args" -}}
- serve
- --listen=:{{ .Values.port }}
- --interval={{ .Values.interval }}
- --cpu-budget={{ .Values.cpuBudget }}
{{- if .Values.sizeClasses }}
- --size-classes
{{- end }}
{{- if .Values.goCollector }}
- --compat=go-collector
{{- end }}
{{- range .Values.podLabels }}
- {{ printf "--pod-label=%s" . | quote }}
{{- end }}
{{- if .Values.kubernetesApi.enabled }}
- --kubernetes
{{- end }}
{{- if .Values.blackBox.enabled }}
- --black-box=/var/lib/gomem/black-box
- --black-box-bytes={{ .Values.blackBox.bytes }}
{{- if .Values.blackBox.crashes }}
- --black-box-crashes
{{- end }}
{{- end }}
{{- if .Values.webConfig.secretName }}
- --web-config=/etc/gomem/web.yml
{{- end }}
{{- range concat .Values.select .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}
