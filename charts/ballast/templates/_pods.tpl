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
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "ballast.logEnv" -}}
- name: BALLAST_LOG
  value: {{ .Values.log.level | quote }}
- name: BALLAST_LOG_FORMAT
  value: {{ .Values.log.format }}
{{- end }}

{{/* Where a pod may run: (list $ its-values). */}}
{{- define "ballast.placement" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Job of a hook, with its account and rights: (dict "root" $ "role" … "hook" … "args" (list …)
     "rules" "YAML" "localRules" "YAML" "retries" n "standing" bool). Standing ones are objects of the release, the
     others hooks themselves. A hook that succeeded is deleted as soon as one after it fails or times out. */}}
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
  name: {{ $account }}
  namespace: {{ $root.Release.Namespace }}
  {{- include "ballast.metadata" (list $root .role (merge (dict) $early $values.serviceAccount.annotations)) | nindent 2 }}
automountServiceAccountToken: false
---
{{- end }}
{{- if $root.Values.rbac.create }}
{{- if .rules }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  {{- include "ballast.metadata" (list $root .role $early) | nindent 2 }}
rules:
{{ .rules }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  {{- include "ballast.metadata" (list $root .role $early) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
- kind: ServiceAccount
  name: {{ $account }}
  namespace: {{ $root.Release.Namespace }}
---
{{- end }}
{{- with .localRules }}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  {{- include "ballast.metadata" (list $root $.role $early) | nindent 2 }}
rules:
{{ . }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  {{- include "ballast.metadata" (list $root $.role $early) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
- kind: ServiceAccount
  name: {{ $account }}
  namespace: {{ $root.Release.Namespace }}
---
{{- end }}
{{- end }}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  {{- include "ballast.metadata" (list $root .role (dict "helm.sh/hook" .hook "helm.sh/hook-weight" "0" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded")) | nindent 2 }}
spec:
  # No activeDeadlineSeconds: what a Job has begun it ends, whatever became of the Helm that waited for it.
  backoffLimit: {{ .retries }}
  template:
    metadata:
      labels:
        {{- include "ballast.podLabels" (list $root .role $values.podLabels) | nindent 8 }}
      {{- with $values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ $account }}
      automountServiceAccountToken: true
      restartPolicy: OnFailure
      {{- $tolerations := $values.tolerations | default $root.Values.controller.tolerations }}
      {{- include "ballast.placement" (list $root (merge (dict "tolerations" $tolerations) $values)) | trim | nindent 6 }}
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
        {{- include "ballast.logEnv" $root | nindent 8 }}
        securityContext:
          {{- include "ballast.restrictedContainer" $root | nindent 10 }}
        # What it said last is in the pod's status, also when its logs are gone.
        terminationMessagePolicy: FallbackToLogsOnError
        {{- with $values.resources }}
        resources:
          {{- toYaml . | nindent 10 }}
        {{- end }}
{{- end }}
