// Command alerts evaluates alerting rules over series that a test gives, with Prometheus' own
// engine: what `promtool test rules` does, without the rest of promtool.
//
// It reads one JSON document from standard input and writes one to standard output.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

// request is what a test asks.
type request struct {
	// Rules is the content of a rules file.
	Rules string `json:"rules"`
	// Cases are evaluated one after the other, each over its own series.
	Cases []testCase `json:"cases"`
}

type testCase struct {
	// Interval between two samples of a series and between two evaluations.
	Interval string `json:"interval"`
	// Series in the notation of `promtool test rules`: name and labels, and values.
	Series []series `json:"series"`
	// Until is the time of the last evaluation.
	Until string `json:"until"`
}

type series struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

// answer says for each case how often each alert fired.
type answer struct {
	Cases []result `json:"cases"`
}

type result struct {
	// Evaluations is how often the rules were evaluated.
	Evaluations int `json:"evaluations"`
	// Firing counts the evaluations at which an alert fired, by name of the alert.
	Firing map[string]int `json:"firing"`
	// Flaps counts how often it began to fire.
	Flaps map[string]int `json:"flaps"`
	// Summaries are the rendered summaries, by name of the alert.
	Summaries map[string][]string `json:"summaries"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "alerts:", err)
		os.Exit(1)
	}
}

func run() error {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	file, err := os.CreateTemp("", "rules-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.WriteString(asked.Rules); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	told := answer{Cases: []result{}}
	for number, one := range asked.Cases {
		result, err := evaluate(file.Name(), one)
		if err != nil {
			return fmt.Errorf("case %d: %w", number, err)
		}
		told.Cases = append(told.Cases, result)
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

func evaluate(file string, one testCase) (result, error) {
	interval, err := model.ParseDuration(one.Interval)
	if err != nil {
		return result{}, err
	}
	until, err := model.ParseDuration(one.Until)
	if err != nil {
		return result{}, err
	}
	lines := []string{"load " + interval.String()}
	for _, each := range one.Series {
		lines = append(lines, "  "+each.Series+" "+each.Values)
	}
	suite, err := promqltest.NewLazyLoader(strings.Join(lines, "\n"), promqltest.LazyLoaderOpts{})
	if err != nil {
		return result{}, err
	}
	defer suite.Close()
	suite.SubqueryInterval = time.Duration(interval)
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:  rules.EngineQueryFunc(suite.QueryEngine(), suite.Storage()),
		Appendable: suite.Storage(),
		Context:    context.Background(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
		Logger:     slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(),
		Parser:     parser.NewParser(parser.Options{}),
	})
	groups, errs := manager.LoadGroups(time.Duration(interval), labels.EmptyLabels(), "", nil, false, file)
	if len(errs) > 0 {
		return result{}, errs[0]
	}
	told := result{Firing: map[string]int{}, Flaps: map[string]int{}, Summaries: map[string][]string{}}
	start := time.Unix(0, 0).UTC()
	fired := map[string]bool{}
	summaries := map[string]map[string]bool{}
	var failed error
	for at := start; !at.After(start.Add(time.Duration(until))); at = at.Add(time.Duration(interval)) {
		suite.WithSamplesTill(at, func(err error) {
			if err != nil {
				failed = err
			}
		})
		if failed != nil {
			return result{}, failed
		}
		told.Evaluations++
		firing := map[string]bool{}
		for _, group := range groups {
			group.Eval(suite.Context(), at)
			for _, rule := range group.Rules() {
				if err := rule.LastError(); err != nil {
					return result{}, fmt.Errorf("%s: %w", rule.Name(), err)
				}
				alerting, is := rule.(*rules.AlertingRule)
				if !is {
					continue
				}
				for _, alert := range alerting.ActiveAlerts() {
					if alert.State != rules.StateFiring {
						continue
					}
					firing[rule.Name()] = true
					if summaries[rule.Name()] == nil {
						summaries[rule.Name()] = map[string]bool{}
					}
					summaries[rule.Name()][alert.Annotations.Get("summary")] = true
				}
			}
		}
		for name := range firing {
			told.Firing[name]++
			if !fired[name] {
				told.Flaps[name]++
			}
		}
		fired = firing
	}
	for name, all := range summaries {
		for summary := range all {
			told.Summaries[name] = append(told.Summaries[name], summary)
		}
		sort.Strings(told.Summaries[name])
	}
	return told, nil
}
