package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command says what it does, with an example that is a command; one that
// has --json says what that prints.
func TestHelp(t *testing.T) {
	n := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		n++
		path := c.CommandPath()
		if c.Short == "" || c.Long == "" {
			t.Errorf("%s has no words about it", path)
		}
		if !strings.Contains(c.Example, path) {
			t.Errorf("%s has no example of itself", path)
		}
		for _, line := range strings.Split(c.Example, "\n") {
			checkExample(t, path, line)
		}
		if c.Flags().Lookup("json") != nil || c.InheritedFlags().Lookup("json") != nil {
			if !strings.Contains(c.Long, "--json") {
				t.Errorf("%s does not say what --json prints", path)
			}
		}
		var out bytes.Buffer
		if code := run(t.Context(), append(strings.Fields(path)[1:], "--help"), nil, &out, &out); code != exitOK || !strings.Contains(out.String(), "Examples:") {
			t.Errorf("%s --help: status %d\n%s", path, code, out.String())
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if len(line) > 200 {
				t.Errorf("%s --help has a line of %d characters", path, len(line))
			}
		}
	}
	walk(newRootCmd())
	if n < 15 {
		t.Errorf("only %d commands", n)
	}
}

// checkExample: the command is there and has the flags that the example gives it.
func checkExample(t *testing.T, path, line string) {
	t.Helper()
	_, call, found := strings.Cut(line, "runnel ")
	if !found {
		return
	}
	call, _, _ = strings.Cut(call, " |")
	call, _, _ = strings.Cut(call, " <")
	call, _, _ = strings.Cut(call, "  ") // then comes what it is for
	args := strings.Fields(call)
	cmd, rest, err := newRootCmd().Find(args)
	if err != nil {
		t.Errorf("%s: example %q: %v", path, line, err)
		return
	}
	for _, a := range rest {
		name, isFlag := strings.CutPrefix(a, "--")
		if isFlag && cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
			t.Errorf("%s: example %q: no flag %s", path, line, a)
		}
	}
}
