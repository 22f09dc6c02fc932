package rig

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Series is a figure of every round: its median, and how far it went.
type Series struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Of makes a series of values, one a round at least.
func Of(values []float64) Series {
	s := slices.Clone(values)
	slices.Sort(s)
	mid := s[len(s)/2]
	if len(s)%2 == 0 {
		mid = (mid + s[len(s)/2-1]) / 2
	}
	return Series{round(mid), round(s[0]), round(s[len(s)-1])}
}

// Ratio is that of a to b, round by round.
func Ratio(a, b []float64) Series {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return Of(r)
}

// round keeps four digits: no measurement here has more.
func round(f float64) float64 {
	var g float64
	if _, err := fmt.Sscan(fmt.Sprintf("%.4g", f), &g); err != nil {
		return f
	}
	return g
}

// Target is what a figure's median has to be.
type Target struct {
	What string  `json:"what"`
	Is   float64 `json:"is"`
	Want string  `json:"want"` // ">= 0.85"
	Met  bool    `json:"met"`
}

// AtLeast and AtMost make targets.
func AtLeast(what string, is, want float64) Target {
	return Target{what, is, fmt.Sprintf(">= %v", want), is >= want}
}

// AtMost is a target below which a figure has to stay.
func AtMost(what string, is, want float64) Target {
	return Target{what, is, fmt.Sprintf("<= %v", want), is <= want}
}

// Result is what a measurement prints.
type Result struct {
	Figures map[string]Series `json:"figures"`
	Ratio   Series            `json:"ratio"`
	About   string            `json:"ratio_is"`
	Targets []Target          `json:"targets"`
	Notes   []string          `json:"notes,omitempty"`
}

func (r *Result) print(out io.Writer, b *Bench) error {
	load := "unknown"
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Join(strings.Fields(string(text))[:3], " ")
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // ">=" is for people
	return e.Encode(struct {
		Bench      string `json:"bench"`
		Quick      bool   `json:"quick,omitempty"` // its figures mean nothing
		Rounds     int    `json:"rounds"`
		Processors int    `json:"processors"`
		Go         string `json:"go"`
		LoadAfter  string `json:"load_average_after"` // tells whether others used the machine
		*Result
	}{b.Name, b.Quick, b.Rounds, processors(), runtime.Version(), load, r})
}
