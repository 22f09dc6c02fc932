package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestToolSizes(t *testing.T) {
	sizes, err := toolSizes()
	if err != nil {
		t.Fatal(err)
	}
	if got := sizes[[3]string{"pybricks-primehub-stm32f4", "7.27.0", "7.28.0"}]; got != [2]int{19936, 29507} || len(sizes) < 20 {
		t.Errorf("%v of %d", got, len(sizes))
	}
}

// TestFindPairs: versions by number, the largest file of each, what is known beside
// neighbours, and the last alone.
func TestFindPairs(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"v9.0", "v10.0", "v9.10"} {
		d := filepath.Join(dir, "series", v)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, size := range map[string]int{"app.bin": minImage + 2, "boot.bin": minImage + 1, "table.bin": 10} {
			if err := os.WriteFile(filepath.Join(d, name), make([]byte, size), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	pairs, err := findPairs([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]string{{"v9.0", "v9.10"}, {"v9.10", "v10.0"}, {"", "v10.0"}}
	if len(pairs) != len(want) {
		t.Fatalf("%+v", pairs)
	}
	for i, p := range pairs {
		if p.series != "series" || p.old.version != want[i][0] || p.new.version != want[i][1] || filepath.Base(p.new.path) != "app.bin" {
			t.Errorf("%+v", p)
		}
	}
	if _, err := findPairs([]string{t.TempDir()}); err == nil {
		t.Error("an empty folder has pairs")
	}
}
