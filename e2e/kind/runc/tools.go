//go:build tools

// Package tools pins what the kind node is built from.
package tools

import (
	_ "github.com/opencontainers/runc"
)
