package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/inspect"
)

// boot --vectors: cases in, the same cases with the bootloader's decision out.

// vector is one case: a JSON object whose members keep their order, and what is
// not ours their exact text.
type vector struct {
	names  []string
	values map[string]json.RawMessage
}

// vectorResults are the members that decide writes, behind all others.
var vectorResults = []string{"boot_index", "after0", "after1", "initial_contents"}

const maxVectorLine = 64 << 10 // bytes

func bootVectors(in io.Reader, out io.Writer, rollback bool) error {
	r := bufio.NewReaderSize(in, maxVectorLine)
	w := bufio.NewWriter(out)
	one := func(text []byte) error {
		var v vector
		if err := json.Unmarshal(text, &v); err != nil {
			return err
		}
		if err := v.decide(rollback); err != nil {
			return err
		}
		b, err := json.Marshal(&v)
		if err == nil {
			_, err = w.Write(append(b, '\n'))
		}
		return err
	}
	// A whole array, as a file of vectors is, is taken too.
	if first, err := r.Peek(1); err == nil && first[0] == '[' {
		var all []json.RawMessage
		if err := json.NewDecoder(io.LimitReader(r, inspect.MaxSize)).Decode(&all); err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		for i := range all {
			if err := one(all[i]); err != nil {
				return fmt.Errorf("case %d: %w", i+1, err)
			}
		}
		return w.Flush()
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxVectorLine)
	line := 0
	for sc.Scan() {
		line++
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		if err := one(sc.Bytes()); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("line %d: %w", line+1, err)
	}
	return w.Flush()
}

// UnmarshalJSON takes an object; of a name that comes twice the last value counts.
func (v *vector) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return errors.New("it is no JSON object")
	}
	v.names, v.values = nil, map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok {
			return errors.New("a member has no name")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if _, known := v.values[name]; !known {
			v.names = append(v.names, name)
		}
		v.values[name] = value
	}
	return nil
}

// MarshalJSON writes the members in their order.
func (v *vector) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, name := range v.names {
		if i > 0 {
			b = append(b, ',')
		}
		n, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, n...), ':'), v.values[name]...)
	}
	return append(b, '}'), nil
}

func (v *vector) get(name string, to any) error {
	value, ok := v.values[name]
	if !ok {
		return fmt.Errorf("%s is missing", name)
	}
	if err := json.Unmarshal(value, to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (v *vector) entry(name string) (e esp32.Entry, err error) {
	var text string
	if err := v.get(name, &text); err != nil {
		return e, err
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(e) {
		return e, fmt.Errorf("%s is not a record of 64 hex digits", name)
	}
	copy(e[:], b)
	return e, nil
}

// decide sets the results.
func (v *vector) decide(rollback bool) error {
	e0, err := v.entry("e0")
	if err != nil {
		return err
	}
	e1, err := v.entry("e1")
	if err != nil {
		return err
	}
	var apps uint32
	var factory bool
	if err := errors.Join(v.get("app_count", &apps), v.get("factory", &factory)); err != nil {
		return err
	}
	s := esp32.Select(e0, e1, apps, factory, rollback)
	initial := 0
	if s.InitialContents {
		initial = 1
	}
	v.names = slices.DeleteFunc(v.names, func(n string) bool { return slices.Contains(vectorResults, n) })
	for i, result := range []any{s.BootIndex, hex.EncodeToString(s.After[0][:]), hex.EncodeToString(s.After[1][:]), initial} {
		if v.values[vectorResults[i]], err = json.Marshal(result); err != nil {
			return err
		}
	}
	v.names = append(v.names, vectorResults...)
	return nil
}
