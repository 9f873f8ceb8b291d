// The kind command, with a node image that the environment names: `kind create cluster`, as
// people type it, then uses the image that was built here instead of one from a registry.
package main

import (
	"os"

	"sigs.k8s.io/kind/cmd/kind/app"
	"sigs.k8s.io/kind/pkg/cmd"
)

const variable = "BALLAST_KIND_IMAGE"

func main() {
	if err := app.Run(cmd.NewLogger(), cmd.StandardIOStreams(), arguments(os.Args[1:], os.Getenv(variable))); err != nil {
		os.Exit(1)
	}
}

func arguments(given []string, image string) []string {
	if image == "" || len(given) < 2 || given[0] != "create" || given[1] != "cluster" {
		return given
	}
	// Where a flag is given twice, the last one counts: the caller's own.
	return append([]string{"create", "cluster", "--image", image}, given[2:]...)
}
