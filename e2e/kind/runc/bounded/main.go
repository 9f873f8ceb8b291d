// Runs runc in places that lack capabilities: a privileged container asks for all of them, and
// runc fails over the first that cannot be had. This program takes out of the container's
// configuration whatever its own bounding set lacks, and becomes the runc beside it
// (its own path with `.real` behind it). Where nothing is lacking it changes nothing.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Raises limits of resources; the only one that containers are known to miss.
const (
	sysResource     = "CAP_SYS_RESOURCE"
	sysResourceBit  = 24
	boundingSetLine = "CapBnd:"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runc (bounded):", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	bounded, err := lacksSysResource()
	if err != nil {
		return err
	}
	if bounded {
		if err := adjust(arguments); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self+".real", append([]string{"runc"}, arguments...), os.Environ())
}

func lacksSysResource() (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	for _, line := range strings.Split(string(status), "\n") {
		if set, found := strings.CutPrefix(line, boundingSetLine); found {
			bits, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return err == nil && bits&(1<<sysResourceBit) == 0, err
		}
	}
	return false, fmt.Errorf("no %s in /proc/self/status", boundingSetLine)
}

// What a container is started from is in its bundle; what `exec` runs in one, in a file that a
// flag names.
func adjust(arguments []string) error {
	bundle, process, verb := "", "", ""
	for i, argument := range arguments {
		next := ""
		if i+1 < len(arguments) {
			next = arguments[i+1]
		}
		switch argument {
		case "--bundle", "-b":
			bundle = next
		case "--process", "-p":
			process = next
		case "create", "run", "exec":
			if verb == "" {
				verb = argument
			}
		}
	}
	switch {
	case verb == "exec" && process != "":
		return edit(process, func(whole map[string]any) map[string]any { return whole })
	case (verb == "create" || verb == "run") && bundle != "":
		return edit(bundle+"/config.json", func(whole map[string]any) map[string]any {
			inner, _ := whole["process"].(map[string]any)
			return inner
		})
	}
	return nil
}

func edit(path string, process func(map[string]any) map[string]any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var whole map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	// Device numbers and limits are larger than a float can hold.
	decoder.UseNumber()
	if err := decoder.Decode(&whole); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	limit(process(whole))
	changed, err := json.Marshal(whole)
	if err != nil {
		return err
	}
	return os.WriteFile(path, changed, 0o600)
}

func limit(process map[string]any) {
	delete(process, "rlimits")
	delete(process, "oomScoreAdj")
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		all, _ := set.([]any)
		kept := []any{}
		for _, capability := range all {
			if capability != sysResource {
				kept = append(kept, capability)
			}
		}
		sets[name] = kept
	}
}
