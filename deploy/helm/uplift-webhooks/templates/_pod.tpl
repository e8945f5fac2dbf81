{{/* The metadata and the common part of the specification of a Pod. Parameters: root, component. */}}
{{- define "uplift.podMetadata" -}}
labels:
  {{- include "uplift.selector" . | nindent 2 }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # If a setting changes, Kubernetes replaces the Pods.
  checksum/settings: {{ include "uplift.settings" .root | sha256sum }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "uplift.podSpec" -}}
automountServiceAccountToken: false
# Kubernetes would set variables such as UPLIFT_PORT for a Service with the name `uplift`.
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 64Mi
  - name: secrets
    projected:
      defaultMode: 0440
      sources:
        {{- range $file, $secret := .root.Values.secrets }}
        - secret:
            name: {{ $secret.name }}
            items:
              - key: {{ $secret.key }}
                path: {{ $file }}
        {{- end }}
{{- end }}

{{/* The common part of a container. Parameters: root, settings (the name of the ConfigMap). */}}
{{- define "uplift.container" -}}
image: {{ include "uplift.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
envFrom:
  - configMapRef:
      name: {{ .settings }}
env:
  {{- range $file, $secret := .root.Values.secrets }}
  {{- if hasPrefix "UPLIFT_" $file }}
  - name: {{ $file }}_FILE
    value: /etc/uplift/secrets/{{ $file }}
  {{- end }}
  {{- end }}
  {{- with include "uplift.extraEnv" .root }}
  {{- . | nindent 2 }}
  {{- end }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  - name: secrets
    mountPath: /etc/uplift/secrets
    readOnly: true
{{- end }}

{{/* A Deployment of servers. Parameters: root, component (the role), values, autoscaled, drainSeconds. */}}
{{- define "uplift.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "uplift.name" .root }}-{{ .component }}
  labels:
    {{- include "uplift.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  {{- if not (or .values.autoscaling.enabled (kindIs "invalid" .values.replicas)) }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "uplift.selector" . | nindent 6 }}
  # A new Pod is ready before an old one stops.
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    metadata:
      {{- include "uplift.podMetadata" . | nindent 6 }}
    spec:
      serviceAccountName: {{ include "uplift.name" .root }}
      # The server stops within 20 s after SIGTERM.
      terminationGracePeriodSeconds: {{ add 30 .drainSeconds }}
      {{- include "uplift.podSpec" . | nindent 6 }}
      topologySpreadConstraints:
        {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - topologyKey: {{ $key }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "uplift.selector" $ | nindent 14 }}
          matchLabelKeys: [pod-template-hash]
        {{- end }}
      containers:
        - name: server
          args: [serve, --role, {{ .component }}]
          {{- include "uplift.container" (dict "root" .root "settings" (include "uplift.name" .root)) | nindent 10 }}
          ports:
            - name: http
              containerPort: 8420
          {{- if .drainSeconds }}
          lifecycle:
            preStop:
              sleep:
                seconds: {{ .drainSeconds }}
          {{- end }}
          # When the server starts, it reads all endpoints into memory.
          startupProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 2
            timeoutSeconds: 5
            failureThreshold: 90
          livenessProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          # While the database does not respond, /readyz takes up to 5 s.
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 5
            timeoutSeconds: 6
            failureThreshold: 2
          resources:
            {{- toYaml .values.resources | nindent 12 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "uplift.name" .root }}-{{ .component }}
  labels:
    {{- include "uplift.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "uplift.selector" . | nindent 6 }}
{{- end }}
