{{/* Names, labels, and what depends on which classes there are. */}}

{{/* Fills in the defaults of keys without a value, such as `livenessProbe:`. Helm deletes such keys together with
     their defaults. Every template begins with it; doing it twice changes nothing. The defaults come from
     values.yaml (`make chart`). Maps of the user, such as labels and resources, are empty without a value, and nothing is
     filled into them: `null` removes a default of theirs. */}}
{{- define "ballast.init" -}}
{{- include "ballast.fill" (list .Values (include "ballast.defaults" . | fromJson)) -}}
{{- range $key, $value := .Values -}}
{{- if ne $key "extraObjects" -}}{{- include "ballast.strip" $value -}}{{- end -}}
{{- end -}}
{{- end }}

{{/* Removes the keys without a value from maps, at any depth: the API server has its own defaults for them. A class or a
     pool without a value does not exist. Objects of the user stay as they are. */}}
{{- define "ballast.strip" -}}
{{- $all := . -}}
{{- if kindIs "map" $all -}}
{{- range $key, $value := $all -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset $all $key -}}{{- else -}}{{- include "ballast.strip" $value -}}{{- end -}}
{{- end -}}
{{- else if kindIs "slice" $all -}}
{{- range $all -}}{{- include "ballast.strip" . -}}{{- end -}}
{{- end -}}
{{- end }}
{{- define "ballast.fill" -}}
{{- $values := index . 0 -}}
{{- $free := list "affinity" "alertLabels" "annotations" "classes" "commonAnnotations" "commonLabels" "labels"
  "namespaceSelector" "nodeSelector" "podAnnotations" "podLabels" "pools" "resources" "strategy" "updateStrategy" -}}
{{- range $key, $default := index . 1 -}}
{{- $value := index $values $key -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := set $values $key (ternary dict $default (has $key $free)) -}}
{{- else if and (kindIs "map" $default) (kindIs "map" $value) (not (has $key $free)) -}}
{{- include "ballast.fill" (list $value $default) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Several maps of strings as one, as YAML; where they have the same key the last one counts. Written one by one they
     would be duplicate keys. */}}
{{- define "ballast.strings" -}}
{{- $all := dict -}}
{{- range . -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}{{- $_ := set $all $key (toString $value) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $lines := list -}}
{{- range $key, $value := $all -}}
{{- /* YAML 1.1 reads an unquoted 08 as a number, which toYaml does not expect. */ -}}
{{- $line := ternary (printf "%s: %s" ($key | quote) ($value | quote)) (toYaml (dict $key $value)) (regexMatch "^[-+.0-9]" $key) -}}
{{- $lines = append $lines $line -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end }}

{{- define "ballast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | regexFind ".*[^-]" }}
{{- end }}

{{/* As `helm create` makes it; shorter, because roles are appended and names end at 63 characters. The name of a Service
     begins with a letter and contains no dots; names of releases need not. */}}
{{- define "ballast.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := printf "%s-%s" .Release.Name $name }}
{{- if .Values.fullnameOverride }}
{{- $full = .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- $full = .Release.Name }}
{{- end }}
{{- if not (regexMatch "^[a-z]" $full) }}
{{- $full = printf "ballast-%s" $full }}
{{- end }}
{{- $full | replace "." "-" | trunc 40 | regexFind ".*[^-]" }}
{{- end }}

{{/* Call with (list $ "role"); an empty role is the release as a whole. */}}
{{- define "ballast.selectorLabels" -}}
{{- $root := index . 0 -}}
{{- $labels := dict "app.kubernetes.io/name" (include "ballast.name" $root) "app.kubernetes.io/instance" $root.Release.Name -}}
{{- with index . 1 -}}{{- $_ := set $labels "app.kubernetes.io/component" . -}}{{- end -}}
{{- toYaml $labels -}}
{{- end }}

{{/* Labels of an object: (list $ "role"), or with more labels as the third. */}}
{{- define "ballast.labels" -}}
{{- $root := index . 0 -}}
{{- $more := dict -}}
{{- if gt (len .) 2 -}}{{- $more = index . 2 | default dict -}}{{- end -}}
{{- $own := include "ballast.selectorLabels" . | fromYaml -}}
{{- $chart := dict
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/part-of" "ballast"
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- include "ballast.strings" (list $root.Values.commonLabels $more $chart $own) -}}
{{- end }}

{{/* Labels and annotations of an object: (list $ "role" (dict of annotations)), or with more labels as the fourth. */}}
{{- define "ballast.metadata" -}}
{{- $root := index . 0 -}}
{{- $more := dict -}}
{{- if gt (len .) 3 -}}{{- $more = index . 3 -}}{{- end -}}
labels:
  {{- include "ballast.labels" (list $root (index . 1) $more) | nindent 2 }}
{{- with include "ballast.strings" (list $root.Values.commonAnnotations (index . 2)) }}
annotations:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Labels of a pod. Nothing of the chart's version: an upgrade that changes nothing restarts nothing. */}}
{{- define "ballast.podLabels" -}}
{{- $root := index . 0 -}}
{{- include "ballast.strings" (list $root.Values.commonLabels (index . 2) (include "ballast.selectorLabels" . | fromYaml)) -}}
{{- end }}

{{/* `global.imageRegistry` replaces the registry of `image.repository`: the part before the first slash, if it is a host. */}}
{{- define "ballast.image" -}}
{{- $root := . -}}
{{- with .Values.image -}}
{{- $repository := .repository -}}
{{- with $root.Values.global.imageRegistry -}}
{{- $parts := splitn "/" 2 $repository -}}
{{- if and $parts._1 (or (contains "." $parts._0) (contains ":" $parts._0) (eq $parts._0 "localhost")) -}}
{{- $repository = $parts._1 -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .digest -}}
{{ $repository }}@{{ .digest }}
{{- else -}}
{{ $repository }}:{{ .tag | default $root.Chart.AppVersion }}
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

{{/* "true" if a class uses the mock cloud of this chart: one without an endpoint of its own. */}}
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

{{/* "true" if announcers run: as set, or if a class has l2. */}}
{{- define "ballast.announcer" -}}
{{- if kindIs "bool" .Values.announcer.enabled -}}
{{- if .Values.announcer.enabled -}}true{{- end -}}
{{- else -}}
{{- range .Values.classes -}}
{{- if and . (not (kindIs "invalid" .l2)) -}}true{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* "true" if the targets of load balancers can be pods: as set, or if a class has aws. */}}
{{- define "ballast.podTargets" -}}
{{- if kindIs "bool" .Values.controller.podTargets -}}
{{- if .Values.controller.podTargets -}}true{{- end -}}
{{- else -}}
{{- range .Values.classes -}}
{{- if and . (not (kindIs "invalid" .aws)) -}}true{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "ballast.gossipKeyName" -}}
{{ .Values.announcer.gossip.existingSecret | default (printf "%s-gossip-key" (include "ballast.fullname" .)) }}
{{- end }}

{{/* The Secrets that a Job creates, and the key in each, as YAML. */}}
{{- define "ballast.sharedSecrets" -}}
{{- $secrets := dict -}}
{{- if include "ballast.mockCloud" . -}}
{{- $_ := set $secrets (include "ballast.mockTokenName" .) "token" -}}
{{- end -}}
{{- if include "ballast.announcer" . -}}
{{- if not .Values.announcer.gossip.existingSecret -}}
{{- $_ := set $secrets (include "ballast.gossipKeyName" .) "keys" -}}
{{- end -}}
{{- end -}}
{{- with $secrets -}}{{- toYaml . -}}{{- end -}}
{{- end }}

{{/* Objects that stay after the release is gone, where nothing is torn down. */}}
{{- define "ballast.keep" -}}
{{- if not .Values.teardown.onUninstall -}}
helm.sh/resource-policy: keep
{{- end -}}
{{- end }}

{{/* The mock settings of a class, if they are used: enabled, or with an endpoint of their own. */}}
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
{{- if not (kindIs "invalid" (index $ .)) -}}{{- $names = append $names . -}}{{- end -}}
{{- end -}}
{{- join " " $names -}}
{{- end }}
