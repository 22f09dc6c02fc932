package main

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

//go:embed tools.csv
var toolsCSV []byte

// version is an image of a series.
type version struct{ version, path string }

// pair is two images of a series, or with no old one an image alone; and what tools make
// of it, bytes.
type pair struct {
	series    string
	old, new  version
	best, esp int
}

// toolSizes is tools.csv, by series, old and new.
func toolSizes() (map[[3]string][2]int, error) {
	r := csv.NewReader(bytes.NewReader(toolsCSV))
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	sizes := map[[3]string][2]int{}
	for _, f := range rows[1:] {
		best, err := strconv.Atoi(f[3])
		if err != nil {
			return nil, err
		}
		esp, err := strconv.Atoi(f[4])
		if err != nil {
			return nil, err
		}
		sizes[[3]string{f[0], f[1], f[2]}] = [2]int{best, esp}
	}
	return sizes, nil
}

// findPairs finds series: folders with a folder for each version, in which the largest
// .bin file is the image. Of each it takes every version and its next by name, every
// pair that tools.csv knows, and the last one alone.
func findPairs(dirs []string) ([]pair, error) {
	sizes, err := toolSizes()
	if err != nil {
		return nil, err
	}
	var pairs []pair
	for _, dir := range dirs {
		series, err := folders(dir)
		if err != nil {
			return nil, err
		}
		for _, s := range append([]string{dir}, series...) {
			versions, err := findVersions(s)
			if err != nil {
				return nil, err
			}
			if len(versions) < 2 {
				continue
			}
			name := filepath.Base(s)
			for i, o := range versions {
				for j := i + 1; j < len(versions); j++ {
					n := versions[j]
					size, known := sizes[[3]string{name, o.version, n.version}]
					if known || j == i+1 {
						pairs = append(pairs, pair{name, o, n, size[0], size[1]})
					}
				}
			}
			pairs = append(pairs, pair{series: name, new: versions[len(versions)-1]})
		}
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("no series of images below %s", strings.Join(dirs, ", "))
	}
	return pairs, nil
}

func folders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found, nil
}

// findVersions are the versions of a series, in the order of their names, numbers by
// value. What is smaller than minImage is no app image.
func findVersions(series string) ([]version, error) {
	dirs, err := folders(series)
	if err != nil {
		return nil, err
	}
	var found []version
	for _, d := range dirs {
		files, err := filepath.Glob(filepath.Join(d, "*.bin"))
		if err != nil {
			return nil, err
		}
		largest, path := int64(minImage), ""
		for _, f := range files {
			st, err := os.Stat(f)
			if err != nil {
				return nil, err
			}
			if st.Size() > largest {
				largest, path = st.Size(), f
			}
		}
		if path != "" {
			found = append(found, version{filepath.Base(d), path})
		}
	}
	slices.SortFunc(found, func(a, b version) int { return strings.Compare(natural(a.version), natural(b.version)) })
	return found, nil
}

const minImage = 64 << 10

// natural pads the numbers of a name, so that 9 comes before 10.
func natural(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		j := i
		for j < len(s) && s[j] >= '0' && s[j] <= '9' {
			j++
		}
		if j > i {
			fmt.Fprintf(&b, "%020s", s[i:j])
			i = j
			continue
		}
		b.WriteByte(s[i])
		i++
	}
	return b.String()
}
