{{/* The values of keys without a value. Generated from values.yaml by `make chart`. */}}
{{- define "ballast.defaults" -}}
{
  "announcer": {
    "adminAddress": "127.0.0.1",
    "adminPort": 8112,
    "affinity": {},
    "annotations": {},
    "enabled": null,
    "extraArgs": [],
    "extraEnv": [],
    "gossip": {
      "enabled": true,
      "existingSecret": "",
      "port": 7947
    },
    "nodeSelector": {
      "kubernetes.io/os": "linux"
    },
    "podAnnotations": {},
    "podLabels": {},
    "priorityClassName": "system-node-critical",
    "resources": {
      "limits": {
        "memory": "128Mi"
      },
      "requests": {
        "cpu": "20m",
        "memory": "32Mi"
      }
    },
    "serviceAccount": {
      "annotations": {},
      "create": true,
      "name": ""
    },
    "terminationGracePeriodSeconds": 30,
    "tolerations": [
      {
        "operator": "Exists"
      }
    ],
    "updateStrategy": {
      "rollingUpdate": {
        "maxSurge": 1,
        "maxUnavailable": 0
      },
      "type": "RollingUpdate"
    }
  },
  "classes": {
    "local": {
      "default": true,
      "mock": {
        "enabled": false
      }
    }
  },
  "clusterName": "kubernetes",
  "commonAnnotations": {},
  "commonLabels": {},
  "controller": {
    "adminHost": "0.0.0.0",
    "adminPort": 8110,
    "affinity": {},
    "annotations": {},
    "classes": [],
    "extraArgs": [],
    "extraEnv": [],
    "extraEnvFrom": [],
    "extraVolumeMounts": [],
    "extraVolumes": [],
    "leaderElection": {
      "leaseDuration": 15,
      "renewDeadline": 10,
      "retryPeriod": 2
    },
    "livenessProbe": {
      "failureThreshold": 6,
      "periodSeconds": 10,
      "timeoutSeconds": 5
    },
    "nodeSelector": {
      "kubernetes.io/os": "linux"
    },
    "otherControllersLeases": [],
    "podAnnotations": {},
    "podDisruptionBudget": {
      "enabled": true,
      "maxUnavailable": 1
    },
    "podLabels": {},
    "podTargets": null,
    "priorityClassName": "system-cluster-critical",
    "readinessGates": false,
    "readinessProbe": {
      "failureThreshold": 5,
      "periodSeconds": 2,
      "timeoutSeconds": 2
    },
    "replicas": 2,
    "resources": {
      "limits": {
        "memory": "256Mi"
      },
      "requests": {
        "cpu": "50m",
        "memory": "64Mi"
      }
    },
    "serviceAccount": {
      "annotations": {},
      "create": true,
      "name": ""
    },
    "strategy": {
      "rollingUpdate": {
        "maxSurge": 1,
        "maxUnavailable": 1
      },
      "type": "RollingUpdate"
    },
    "terminationGracePeriodSeconds": 30,
    "tolerations": [],
    "topologySpreadConstraints": [],
    "workers": 32
  },
  "crds": {
    "upgrade": true
  },
  "extraObjects": [],
  "fullnameOverride": "",
  "global": {
    "imagePullSecrets": [],
    "imageRegistry": ""
  },
  "image": {
    "digest": "",
    "pullPolicy": "IfNotPresent",
    "repository": "ballast",
    "tag": ""
  },
  "imagePullSecrets": [],
  "jobs": {
    "affinity": {},
    "nodeSelector": {
      "kubernetes.io/os": "linux"
    },
    "podAnnotations": {},
    "podLabels": {},
    "priorityClassName": "",
    "resources": {
      "limits": {
        "memory": "128Mi"
      },
      "requests": {
        "cpu": "10m",
        "memory": "32Mi"
      }
    },
    "serviceAccount": {
      "annotations": {},
      "create": true,
      "name": ""
    },
    "tolerations": []
  },
  "log": {
    "format": "text",
    "level": "info"
  },
  "metrics": {
    "dashboard": {
      "annotations": {},
      "enabled": false,
      "labels": {
        "grafana_dashboard": "1"
      }
    },
    "podMonitor": {
      "enabled": false,
      "interval": "",
      "labels": {},
      "metricRelabelings": [],
      "relabelings": []
    },
    "rules": {
      "alertLabels": {},
      "disabled": [],
      "enabled": false,
      "extra": [],
      "labels": {},
      "runbookUrl": "https://ballast.dev/docs/runbooks",
      "slowFailover": 2.5
    },
    "service": {
      "annotations": {},
      "enabled": false
    },
    "serviceMonitor": {
      "enabled": false,
      "interval": "",
      "labels": {},
      "metricRelabelings": [],
      "relabelings": []
    }
  },
  "mockCloud": {
    "addresses": [],
    "affinity": {},
    "annotations": {},
    "extraArgs": [],
    "extraEnv": [],
    "extraVolumeMounts": [],
    "extraVolumes": [],
    "interface": "auto",
    "listenHost": "$(POD_IP)",
    "nodeSelector": {
      "kubernetes.io/os": "linux"
    },
    "podAnnotations": {},
    "podLabels": {},
    "port": 8111,
    "priorityClassName": "",
    "reservedPorts": [],
    "resources": {
      "limits": {
        "memory": "256Mi"
      },
      "requests": {
        "cpu": "20m",
        "memory": "32Mi"
      }
    },
    "serviceAccount": {
      "annotations": {},
      "create": true,
      "name": ""
    },
    "stateSizeLimit": "256Mi",
    "terminationGracePeriodSeconds": 15,
    "tolerations": []
  },
  "nameOverride": "",
  "networkPolicy": {
    "apiServerPorts": [
      443,
      6443
    ],
    "enabled": false,
    "extraEgress": [],
    "metricsFrom": [],
    "monitoringNamespaces": []
  },
  "pools": {},
  "rbac": {
    "create": true
  },
  "stampClass": {
    "class": "",
    "enabled": false,
    "failurePolicy": "Fail",
    "namespaceSelector": {}
  },
  "teardown": {
    "onUninstall": true
  }
}
{{- end }}
