package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// size is what a program takes, in bytes. RAM is static: data, bss and the 2 KiB
// of C stack. It includes the 6 KiB chip of the check programs where they use it.
type size struct{ flash, ram int }

// tolerance is how much a program may grow without a word: a compiler's noise.
func (s size) tolerance() int { return 64 + s.flash/50 }

// parseSize reads what "tinygo build -size=short" prints.
func parseSize(out string) (size, error) {
	var code, data, bss int
	var s size
	lines := strings.Split(strings.TrimSpace(out), "\n")
	_, err := fmt.Sscanf(lines[len(lines)-1], "%d %d %d | %d %d", &code, &data, &bss, &s.flash, &s.ram)
	if err != nil {
		return size{}, fmt.Errorf("no sizes in what tinygo printed: %q", out)
	}
	return s, nil
}

func sizesFile(root string) string {
	return filepath.Join(root, "tools", "tinygo", "sizes.txt")
}

// key names a program on a target in the committed file.
func (j *job) key() string { return j.program + " " + j.target }

// readSizes reads the committed file; none is no sizes.
func readSizes(path string) (map[string]size, error) {
	sizes := map[string]size{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return sizes, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		var program, target string
		var s size
		if _, err := fmt.Sscan(line, &program, &target, &s.flash, &s.ram); err != nil {
			return nil, fmt.Errorf("%s: line %q: %w", path, line, err)
		}
		sizes[program+" "+target] = s
	}
	return sizes, lines.Err()
}

// writeSizes replaces the sizes of the jobs and keeps the others.
func writeSizes(path string, jobs []*job, sizes map[string]size) error {
	for _, j := range jobs {
		if !j.refuse {
			sizes[j.key()] = j.size
		}
	}
	keys := make([]string, 0, len(sizes))
	for k := range sizes {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	b.WriteString("# program target flash ram (bytes); written by 'make size-update', compared by 'make size'\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "%s %d %d\n", k, sizes[k].flash, sizes[k].ram)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// printJobs prints a line a program and target, and returns how many failed and
// which grew by more than the tolerance.
func printJobs(w io.Writer, jobs []*job, committed map[string]size) (failed int, grown []string) {
	fmt.Fprintf(w, "%-16s %-9s %8s %8s   %s\n", "program", "target", "flash", "ram", "against the committed sizes")
	for _, j := range jobs {
		switch {
		case j.err != nil:
			failed++
			fmt.Fprintf(w, "%-16s %-9s FAILED: %v\n", j.program, j.target, j.err)
		case j.refuse:
			fmt.Fprintf(w, "%-16s %-9s refused by the linker, as it must be\n", j.program, j.target)
		default:
			note := "new"
			if old, ok := committed[j.key()]; ok {
				note = fmt.Sprintf("%+d flash, %+d ram", j.size.flash-old.flash, j.size.ram-old.ram)
				if j.size.flash > old.flash+old.tolerance() || j.size.ram > old.ram {
					note += ": GREW"
					grown = append(grown, j.key())
				}
			}
			fmt.Fprintf(w, "%-16s %-9s %8d %8d   %s\n", j.program, j.target, j.size.flash, j.size.ram, note)
		}
	}
	return failed, grown
}
