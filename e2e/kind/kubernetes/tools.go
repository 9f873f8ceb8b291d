//go:build tools

// Package tools pins what a kind node has and the lab's nodes have not. Versions are those of
// e2e/kubernetes; a test compares.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kubeadm"
)
