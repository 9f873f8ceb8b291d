//go:build tools

// Package metallb pins the programs of MetalLB that the tests of a migration run; nothing here runs.
package metallb

import (
	_ "go.universe.tf/metallb/controller"
	_ "go.universe.tf/metallb/speaker"
)
