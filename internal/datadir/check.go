package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// OpenToCheck locks a folder that is there and makes nothing in it but the lock.
// CodeNotFound where there is no folder or no database in it; CodeConflict where a
// server has it.
func OpenToCheck(path string) (*Dir, error) {
	if _, err := os.Stat(filepath.Join(path, databaseName)); err != nil {
		return nil, &fleet.Error{Code: fleet.CodeNotFound, Message: fmt.Sprintf("%s is no data folder: there is no %s in it", path, databaseName), Err: notMissing(err),
			Hint: "name the folder that a server was started with"}
	}
	d, err := lockAt(path)
	if fleet.CodeOf(err) == fleet.CodeConflict {
		return nil, &fleet.Error{Code: fleet.CodeConflict, Message: fmt.Sprintf("a server uses the data folder %s", path),
			Hint: "stop it first; while it runs it checks its images by itself, see its log"}
	}
	return d, err
}

func notMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Check looks at the files whose content only this package knows, and at who may
// read what: each finding says what to do. unfinished are files, by name, that a
// crash left half-written; RemoveUnfinished removes them.
func (d *Dir) Check() (found []*fleet.Error, unfinished []string, err error) {
	for _, f := range []struct {
		name     string
		optional bool
	}{{secretName, false}, {tokenName, true}} {
		path := filepath.Join(d.path, f.name)
		text, err := readSecret(path)
		var e *fleet.Error
		switch {
		case errors.Is(err, fs.ErrNotExist) && f.optional:
			continue // put away, as it should be
		case errors.Is(err, fs.ErrNotExist):
			e = &fleet.Error{Code: fleet.CodeNotFound, Message: "there is no " + f.name,
				Hint: "bring the file back from where you keep it: the device keys can't be read without it"}
		case errors.As(err, &e):
		case err != nil:
			return found, nil, err
		case f.name == secretName && !hexDigits(text):
			e = &fleet.Error{Code: fleet.CodeInvalid, Message: path + " does not hold 64 hex digits", Hint: "bring the file back from where you keep it"}
		case f.name == tokenName && !isToken(text):
			e = &fleet.Error{Code: fleet.CodeInvalid, Message: path + " holds no token", Hint: "remove it: what counts is in the database"}
		}
		if e != nil {
			found = append(found, e)
		}
	}
	for path, others := range map[string]fs.FileMode{d.path: 0o022, d.Database(): 0o077} { // the folder may be looked into: what is in it not
		st, err := os.Stat(path)
		if err != nil {
			return found, nil, err
		}
		if mode := st.Mode().Perm(); runtime.GOOS != "windows" && mode&others != 0 {
			found = append(found, &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("%s has mode %04o: others may use it", path, mode), Hint: "chmod go= " + path})
		}
	}
	unfinished, err = d.unfinished()
	return found, unfinished, err
}

func isToken(s string) bool {
	_, err := fleet.HashToken(s)
	return err == nil
}

func hexDigits(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// unfinished are files that writeFile began: a name of theirs, a dot before it and a number behind it.
func (d *Dir) unfinished() (names []string, err error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		for _, name := range []string{secretName, tokenName} {
			if strings.HasPrefix(e.Name(), "."+name+"-") && e.Type().IsRegular() {
				names = append(names, e.Name())
			}
		}
	}
	return names, nil
}

// RemoveUnfinished removes what Check calls so.
func (d *Dir) RemoveUnfinished() error {
	names, err := d.unfinished()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(d.path, name)); err != nil {
			return err
		}
	}
	return nil
}
