package main

import (
	"strings"
	"testing"
)

const goodSummary = `{"event":"summary","ok":true,"image_bytes":1068032,"chunks":1043,"chunk_bytes":1024,` +
	`"working_set_bytes":2900,"allocs_per_chunk":0,"refetched_bytes":2048,"rolled_back":true,"seconds":12.5,` +
	`"wire":"native","update_time_ratio":1.0996,"update_time_ratio_cut":1.36,"wire_bytes":1112840,"overhead_ratio":1.042}`

// oldSummary is that of the v1 wire, which has none of the native figures.
const oldSummary = `{"event":"summary","ok":true,"image_bytes":1068032,"chunks":1043,"chunk_bytes":1024,` +
	`"working_set_bytes":2900,"allocs_per_chunk":0,"refetched_bytes":2048,"rolled_back":true,"seconds":12.5}`

func TestCheckDemo(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new string // one replacement in the good summary
		complain string // part of the error; empty: none
	}{
		{"good", "", "", ""},
		{"at the bounds", `"working_set_bytes":2900`, `"working_set_bytes":3072`, ""},
		{"not ok", `"ok":true`, `"ok":false`, "ok is false"},
		{"small image", `1068032`, `1024`, "image_bytes"},
		{"chunk size", `"chunk_bytes":1024`, `"chunk_bytes":512`, "chunk_bytes"},
		{"chunks", `1043`, `1042`, "chunks"},
		{"too much RAM", `2900`, `3073`, "working_set_bytes"},
		{"impossibly little RAM", `2900`, `0`, "working_set_bytes"},
		{"allocations", `"allocs_per_chunk":0`, `"allocs_per_chunk":1`, "allocs_per_chunk"},
		{"allocations unknown", `"allocs_per_chunk":0,`, ``, "allocs_per_chunk"},
		{"fetched twice", `2048`, `4097`, "refetched_bytes"},
		{"fetched twice unknown", `"refetched_bytes":2048,`, ``, "refetched_bytes"},
		{"no way back", `"rolled_back":true`, `"rolled_back":false`, "rolled_back"},
		{"slow", `12.5`, `60`, "seconds"},
		{"another event is last", `"summary"`, `"chunk"`, "not a summary"},
		{"another wire", `"wire":"native"`, `"wire":"v1"`, "wire is"},
		{"a slow update", `1.0996`, `1.1004`, "update_time_ratio is"},
		{"an update in no time", `1.0996`, `0`, "update_time_ratio is"},
		{"a slow resume", `1.36`, `1.51`, "update_time_ratio_cut"},
		{"a cut that costs nothing", `1.36`, `1.0996`, "update_time_ratio_cut"},
		{"much on the wire", `"wire_bytes":1112840,"overhead_ratio":1.042`, `"wire_bytes":1123570,"overhead_ratio":1.052`, "overhead_ratio"},
		{"figures that don't agree", `"wire_bytes":1112840`, `"wire_bytes":1102840`, "wire_bytes"},
		{"no native figures", `"wire":"native","update_time_ratio":1.0996,"update_time_ratio_cut":1.36,"wire_bytes":1112840,"overhead_ratio":1.042`, `"x":1`, "overhead_ratio"},
		{"not JSON", `{"event"`, `"event"`, "not a JSON object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			last := strings.Replace(goodSummary, c.old, c.new, 1)
			_, err := checkDemo([]byte("{\"event\":\"start\"}\n"+last+"\n"), "native")
			switch {
			case c.complain == "" && err != nil:
				t.Error(err)
			case c.complain != "" && (err == nil || !strings.Contains(err.Error(), c.complain)):
				t.Errorf("got %v, want something about %s", err, c.complain)
			}
		})
	}
	if _, err := checkDemo([]byte(oldSummary), "v1"); err != nil {
		t.Errorf("v1: %v", err)
	}
	if _, err := checkDemo([]byte("{\"event\":\"start\"}\nnoise\n"+goodSummary), "native"); err == nil {
		t.Error("noise between the events was taken")
	}
	if _, err := checkDemo(nil, "v1"); err == nil {
		t.Error("no output was taken")
	}
}
