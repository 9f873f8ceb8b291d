{{/* What pods have in common. */}}

{{- define "ballast.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "ballast.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "ballast.imageFields" -}}
image: {{ include "ballast.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
{{- end }}

{{/* Environment variables: (list $ (list of more before) (list of the user's)); of one name, the last one counts. */}}
{{- define "ballast.env" -}}
{{- $root := index . 0 -}}
{{- $log := list (dict "name" "BALLAST_LOG" "value" $root.Values.log.level) (dict "name" "BALLAST_LOG_FORMAT" "value" $root.Values.log.format) -}}
{{- $own := list -}}
{{- $theirs := list -}}
{{- range index . 2 -}}{{- $theirs = append $theirs .name -}}{{- end -}}
{{- range concat (index . 1) $log -}}
{{- if not (has .name $theirs) -}}{{- $own = append $own . -}}{{- end -}}
{{- end -}}
{{- toYaml (concat $own (index . 2)) -}}
{{- end }}

{{/* Where a pod may run: (list $ its-values). */}}
{{- define "ballast.placement" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- $names := list -}}
{{- range concat $root.Values.imagePullSecrets $root.Values.global.imagePullSecrets -}}
{{- $name := . -}}
{{- if kindIs "map" . -}}{{- $name = .name -}}{{- end -}}
{{- if not (has $name $names) -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- with $names }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- with include "ballast.strings" (list .nodeSelector) }}
nodeSelector:
  {{- . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Job of a hook, with its account and rights: (dict "root" $ "role" … "hook" … "args" (list …)
     "rules" "YAML" "localRules" "YAML" "retries" n "standing" bool). Standing accounts and rights are objects of the
     release, the others are hooks as well. Helm deletes a hook that succeeded, also if a later one fails. */}}
{{- define "ballast.job" -}}
{{- $root := .root -}}
{{- $values := $root.Values.jobs -}}
{{- $name := printf "%s-%s" (include "ballast.fullname" $root) .role -}}
{{- $account := include "ballast.jobAccountName" (list $root .role) -}}
{{- $early := dict -}}
{{- if not .standing -}}
{{- $early = dict "helm.sh/hook" .hook "helm.sh/hook-weight" "-5" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
{{- end -}}
{{- if $values.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $account | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  {{- include "ballast.metadata" (list $root .role (include "ballast.strings" (list $values.serviceAccount.annotations $early) | fromYaml)) | nindent 2 }}
automountServiceAccountToken: false
---
{{- end }}
{{- if $root.Values.rbac.create }}
{{- if .rules }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name | quote }}
  {{- include "ballast.metadata" (list $root .role $early) | nindent 2 }}
rules:
{{ .rules }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name | quote }}
  {{- include "ballast.metadata" (list $root .role $early) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name | quote }}
subjects:
- kind: ServiceAccount
  name: {{ $account | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
---
{{- end }}
{{- with .localRules }}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  {{- include "ballast.metadata" (list $root $.role $early) | nindent 2 }}
rules:
{{ . }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  {{- include "ballast.metadata" (list $root $.role $early) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name | quote }}
subjects:
- kind: ServiceAccount
  name: {{ $account | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
---
{{- end }}
{{- end }}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  {{- include "ballast.metadata" (list $root .role (dict "helm.sh/hook" .hook "helm.sh/hook-weight" "0" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded")) | nindent 2 }}
spec:
  # No activeDeadlineSeconds: a Job finishes its work, even if Helm no longer waits for it.
  backoffLimit: {{ .retries }}
  template:
    metadata:
      labels:
        {{- include "ballast.podLabels" (list $root .role $values.podLabels) | nindent 8 }}
      {{- with include "ballast.strings" (list $values.podAnnotations) }}
      annotations:
        {{- . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ $account | quote }}
      automountServiceAccountToken: true
      restartPolicy: OnFailure
      {{- $tolerations := $values.tolerations | default $root.Values.controller.tolerations }}
      {{- include "ballast.placement" (list $root (set (omit $values "tolerations") "tolerations" $tolerations)) | trim | nindent 6 }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- include "ballast.restrictedPod" $root | nindent 8 }}
      containers:
      - name: {{ .role }}
        {{- include "ballast.imageFields" $root | nindent 8 }}
        args:
        {{- toYaml .args | nindent 8 }}
        env:
        {{- include "ballast.env" (list $root list list) | nindent 8 }}
        securityContext:
          {{- include "ballast.restrictedContainer" $root | nindent 10 }}
        # The last lines of the log are in the pod's status, also after the log is gone.
        terminationMessagePolicy: FallbackToLogsOnError
        {{- with $values.resources }}
        resources:
          {{- toYaml . | nindent 10 }}
        {{- end }}
{{- end }}
