{{/* Names, labels, and what depends on which classes there are. */}}

{{- define "ballast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* As `helm create` makes it; shorter, because roles are appended and names end at 63 characters. */}}
{{- define "ballast.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Call with (list $ "role"); an empty role is the release as a whole. */}}
{{- define "ballast.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "ballast.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "ballast.labels" -}}
{{- $root := index . 0 -}}
{{ include "ballast.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ballast
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels and annotations of an object: (list $ "role" (dict of annotations)). */}}
{{- define "ballast.metadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "ballast.labels" . | nindent 2 }}
{{- with merge (dict) (index . 2) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Labels of a pod. Nothing of the chart's version: an upgrade that changes nothing restarts nothing. */}}
{{- define "ballast.podLabels" -}}
{{- $root := index . 0 -}}
{{- $own := include "ballast.selectorLabels" . | fromYaml -}}
{{ merge (dict) $own (index . 2) $root.Values.commonLabels | toYaml }}
{{- end }}

{{- define "ballast.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* The name of a role's ServiceAccount: (list $ "role" its-values). */}}
{{- define "ballast.serviceAccountName" -}}
{{- $own := printf "%s-%s" (include "ballast.fullname" (index . 0)) (index . 1) -}}
{{- with index . 2 -}}
{{- if .create -}}
{{ .name | default $own }}
{{- else -}}
{{ .name | default "default" }}
{{- end }}
{{- end }}
{{- end }}

{{/* The ServiceAccount of a hook's Job; one that is created bears the role's name. */}}
{{- define "ballast.jobAccountName" -}}
{{- $account := (index . 0).Values.jobs.serviceAccount -}}
{{- if $account.create -}}
{{ include "ballast.fullname" (index . 0) }}-{{ index . 1 }}
{{- else -}}
{{ $account.name | default "default" }}
{{- end }}
{{- end }}

{{/* "true" if a class wants the mock cloud of this chart: one without an endpoint of its own. */}}
{{- define "ballast.mockCloud" -}}
{{- range .Values.classes -}}
{{- if and . (kindIs "map" .mock) -}}
{{- if and .mock.enabled (not .mock.endpoint) -}}true{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "ballast.mockEndpoint" -}}
http://{{ include "ballast.fullname" . }}-mock-cloud.{{ .Release.Namespace }}.svc:{{ .Values.mockCloud.port }}
{{- end }}

{{- define "ballast.mockTokenName" -}}
{{ include "ballast.fullname" . }}-mock-token
{{- end }}

{{/* Objects that stay after the release is gone, where nothing is torn down. */}}
{{- define "ballast.keep" -}}
{{- if not .Values.teardown.onUninstall -}}
helm.sh/resource-policy: keep
{{- end -}}
{{- end }}

{{/* The mock settings of a class, if they are meant: switched on, or with an endpoint of their own. */}}
{{- define "ballast.mockOf" -}}
{{- with .mock -}}
{{- if or .enabled .endpoint -}}
{{- omit . "enabled" | toYaml -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The providers of a class, separated by spaces; none of a class that is switched off. */}}
{{- define "ballast.providers" -}}
{{- $names := list -}}
{{- if include "ballast.mockOf" . -}}{{- $names = append $names "mock" -}}{{- end -}}
{{- range list "l2" "aws" -}}
{{- if not (kindIs "invalid" (get $ .)) -}}{{- if hasKey $ . -}}{{- $names = append $names . -}}{{- end -}}{{- end -}}
{{- end -}}
{{- join " " $names -}}
{{- end }}
