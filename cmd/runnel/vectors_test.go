package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/testenv"
)

// Every decision of a real bootloader comes out of the command as it was, and what
// the command does not know is handed on.
func TestBootVectorsOfARealBootloader(t *testing.T) {
	file := testenv.Shared(t, "vectors", "otadata-select-vectors.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []map[string]any
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	var in bytes.Buffer
	for _, c := range cases {
		given := map[string]any{"note": "kept", "ops": c["ops"]}
		for _, name := range []string{"e0", "e1", "app_count", "factory"} {
			given[name] = c[name]
		}
		line, err := json.Marshal(given)
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(line, '\n'))
	}
	for name, input := range map[string]string{"lines": in.String(), "array": string(data)} {
		var out, errOut bytes.Buffer
		if code := run(t.Context(), []string{"boot", "--vectors"}, strings.NewReader(input), &out, &errOut); code != exitOK {
			t.Fatalf("%s: status %d: %s", name, code, errOut.String())
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != len(cases) || len(cases) != 1200 {
			t.Fatalf("%s: %d lines for %d cases", name, len(lines), len(cases))
		}
		for i, line := range lines {
			var got map[string]any
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatalf("%s: line %d: %v", name, i+1, err)
			}
			for member, want := range cases[i] {
				a, b := text(t, got[member]), text(t, want)
				if a != b {
					t.Errorf("%s: case %d: %s is %s, want %s", name, i, member, a, b)
				}
			}
			if name == "lines" && got["note"] != "kept" {
				t.Fatalf("a member is lost: %s", line)
			}
		}
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBootVectorsInput(t *testing.T) {
	const e = `"e0":"01000000ffffffffffffffffffffffffffffffffffffffffffffffff9a984347","e1":"02000000ffffffffffffffffffffffffffffffffffffffff020000007437f655"`
	for _, c := range []struct {
		name, in string
		code     int
		want     string
	}{
		{"exact numbers, order, stale results", `{"id":12345678901234567890,"boot_index":9,` + e + `,"x":{"b":1, "a":1.50},"app_count":2,"factory":false}`, 0,
			`{"id":12345678901234567890,` + e + `,"x":{"b":1,"a":1.50},"app_count":2,"factory":false,"boot_index":1,`},
		{"blank lines", "\n{" + e + `,"app_count":2,"factory":true}` + "\n\n", 0, `"initial_contents":0}`},
		{"nothing", "", 0, ""},
		{"no count", "{" + e + `,"factory":true}`, 1, "line 1: app_count is missing"},
		{"no factory", "{" + e + `,"app_count":2}`, 1, "line 1: factory is missing"},
		{"count is negative", "{" + e + `,"app_count":-2,"factory":true}`, 1, "line 1: app_count: "},
		{"short record", `{"e0":"00","e1":"","app_count":2,"factory":true}`, 1, "line 1: e0 is not a record of 64 hex digits"},
		{"no object", "{" + e + `,"app_count":2,"factory":true}` + "\n7", 1, "line 2: it is no JSON object"},
		{"cut off", "{" + e, 1, "line 1: "},
		{"a long line", strings.Repeat(" ", maxVectorLine+1), 1, "line 1: "},
		{"array with a bad case", "[{" + e + `,"app_count":2,"factory":true},[]]`, 1, "case 2: it is no JSON object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := run(t.Context(), []string{"boot", "--vectors"}, strings.NewReader(c.in), &out, &out); code != c.code {
				t.Errorf("status %d, want %d", code, c.code)
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("got %q, want %q in it", out.String(), c.want)
			}
		})
	}
}
