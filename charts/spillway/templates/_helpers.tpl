{{/* Names. */}}
{{- define "spillway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "spillway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "spillway.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "spillway.operator.name" -}}{{ include "spillway.fullname" . }}-operator{{- end }}
{{- define "spillway.gateway.name" -}}{{ include "spillway.fullname" . }}-gateway{{- end }}
{{- define "spillway.webhook.name" -}}{{ include "spillway.fullname" . }}-webhook{{- end }}
{{- define "spillway.externalMetrics.name" -}}{{ include "spillway.fullname" . }}-external-metrics{{- end }}
{{- define "spillway.injection.name" -}}{{ include "spillway.fullname" . }}-injection{{- end }}
{{- define "spillway.tls.name" -}}
{{- if eq .Values.certificates.from "secret" -}}
{{- required "certificates.secret: name the Secret with tls.crt, tls.key and ca.crt" .Values.certificates.secret -}}
{{- else -}}
{{ include "spillway.fullname" . }}-tls
{{- end -}}
{{- end }}

{{- define "spillway.operator.serviceAccount" -}}
{{- default (ternary (include "spillway.operator.name" .) "default" .Values.operator.serviceAccount.create) .Values.operator.serviceAccount.name -}}
{{- end }}
{{- define "spillway.gateway.serviceAccount" -}}
{{- default (ternary (include "spillway.gateway.name" .) "default" .Values.gateway.serviceAccount.create) .Values.gateway.serviceAccount.name -}}
{{- end }}

{{/* Names by which the operator's certificate is asked for. */}}
{{- define "spillway.operator.host" -}}{{ include "spillway.operator.name" . }}.{{ .Release.Namespace }}.svc{{- end }}
{{- define "spillway.operator.url" -}}https://{{ include "spillway.operator.host" . }}:8083{{- end }}
{{- define "spillway.tls.hosts" -}}
{{- $hosts := list -}}
{{- range $service := list (include "spillway.operator.name" .) (include "spillway.webhook.name" .) (include "spillway.externalMetrics.name" .) -}}
{{- $hosts = concat $hosts (list (printf "%s.%s.svc" $service $.Release.Namespace) (printf "%s.%s.svc.cluster.local" $service $.Release.Namespace)) -}}
{{- end -}}
{{- toJson $hosts -}}
{{- end }}

{{/* Labels. */}}
{{- define "spillway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "spillway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: spillway
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that select a component's pods: (dict "root" $ "component" "operator"). They never change. */}}
{{- define "spillway.selector" -}}
app.kubernetes.io/name: {{ include "spillway.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* An image: (dict "root" $ "image" .Values.images.operator). */}}
{{- define "spillway.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Pod Security's level "restricted", and a read-only root. */}}
{{- define "spillway.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "spillway.securityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
{{- end }}

{{/* Spread constraints of a component: (dict "root" $ "component" "operator" "constraints" list). */}}
{{- define "spillway.spread" -}}
{{- range .constraints }}
- {{ toYaml . | nindent 2 | trim }}
  {{- if not .labelSelector }}
  labelSelector:
    matchLabels: {{- include "spillway.selector" (dict "root" $.root "component" $.component) | nindent 6 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What sidecars are made from: the operator reads it, and `spillway inject --config`. */}}
{{- define "spillway.injection.config" -}}
{{- $i := .Values.injection -}}
{{- dict
      "image" (include "spillway.image" (dict "root" . "image" .Values.images.sidecar))
      "imagePullPolicy" .Values.images.sidecar.pullPolicy
      "imagePullSecrets" $i.imagePullSecrets
      "operatorURL" (include "spillway.operator.url" .)
      "namespace" .Release.Namespace
      "inboundPort" (int $i.ports.inbound)
      "routePort" (int $i.ports.route)
      "adminPort" (int $i.ports.admin)
      "drainSeconds" (int $i.drainSeconds)
      "logLevel" $i.logLevel
      "resources" $i.resources
      "env" $i.env
    | toJson -}}
{{- end }}

{{/* The operator's command line: every flag that the chart sets is here. */}}
{{- define "spillway.operator.args" -}}
{{- $account := printf "%s/%s" .Release.Namespace (include "spillway.gateway.serviceAccount" .) -}}
- --source=kubernetes
- --log-level={{ .Values.operator.logLevel }}
- --status-interval={{ .Values.operator.statusIntervalSeconds }}
- --admin-port=8081
- --discovery-port=8083
- --tls-cert-file=/var/run/spillway/tls/tls.crt
- --tls-key-file=/var/run/spillway/tls/tls.key
- --lease-namespace={{ .Release.Namespace }}
- --lease-name={{ include "spillway.operator.name" . }}
{{- /* A container that is started again in its pod is known to be the leader's next life, and waits for nobody. */}}
- --identity=$(POD_NAME)
- --gateway-service-account={{ $account }}
{{- with .Values.operator.podSelector }}
- --pod-selector={{ . }}
{{- end }}
{{- range .Values.operator.watchNamespaces }}
- --watch-namespace={{ . }}
{{- end }}
{{- range .Values.operator.allowHosts }}
- --allow-host={{ . }}
{{- end }}
{{- if .Values.injection.enabled }}
- --webhook-port=9443
- --injection-config=/etc/spillway/injection.json
- --operator-ca-file=/var/run/spillway/tls/ca.crt
{{- end }}
{{- if .Values.externalMetrics.enabled }}
- --external-metrics-port=6443
{{- end }}
{{- end }}

{{/* Rules of the operator in the namespaces that it serves. */}}
{{- define "spillway.operator.rules" -}}
- apiGroups: [spillway.dev]
  resources: [modelbackends, modelroutes]
  verbs: [get, list, watch]
- apiGroups: [spillway.dev]
  resources: [modelbackends/status, modelroutes/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods, services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- with .Values.scaling.targets }}
{{- range . }}
- apiGroups: [{{ .apiGroup | quote }}]
  resources: [{{ .resource }}/scale]
  verbs: [get, patch]
{{- end }}
{{- /* Who else sets replicas: there is one writer. */}}
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [list]
{{- /* The annotation that says which pod goes first. A pod's spec cannot be changed by this subresource. */}}
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
{{- end }}
{{- end }}
