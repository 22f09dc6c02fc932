package fleet

import (
	"errors"
	"strings"
	"testing"
)

func TestFilter(t *testing.T) {
	d := &Device{ID: "pump-7", Tags: []string{"beta", "lab"}, Attributes: map[string]string{"site": "bremen"}, Hardware: "r2", RunningVersion: "1.9.3", Slots: 2,
		Assurance: AssuranceOwn, StrongestWire: WireSigned, Failures: 1, Sequence: 7}
	env := EnvOf(d, &NativeAsk{Slots: []uint32{4096, 8192}, Chip: 5}, "acme/pump")
	for text, want := range map[string]bool{
		"":                                    true,
		"true":                                true,
		`hardware == "r2" and "beta" in tags`: true,
		`hardware in ["r1", "r3"]`:            false,
		`id startsWith "pump-" && !("beta" in tags)`: false,
		`id matches "^pump-[0-9]+$"`:                 true,
		`attributes.site == "bremen"`:                true,
		`attributes["site"] == "bremen"`:             true,
		`attributes.owner == ""`:                     true,
		`attributes.owner == "x" or slots >= 2`:      true,
		`older("1.10.0")`:                            true,
		`older("1.9.3")`:                             false,
		`not older("1.9")`:                           true,
		`slot_bytes >= 8192 and chip == 5`:           true,
		`assurance == "own" and wire == "signed"`:    true,
		`failures < 1`:                               false,
		`lower(hardware) == "r2" and len(tags) == 2`: true,
		`product == "acme/pump"`:                     true,
		`version contains "9.3"`:                     true,
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := f.Match(env); err != nil || got != want {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
}

// What is wrong is pointed at: by the character, from 1.
func TestFilterPointsAtTheMistake(t *testing.T) {
	for _, c := range []struct {
		name, text string
		column     int
		reason     string
	}{
		{"unknown name", `hardwar == "r2"`, 1, "hardwar"},
		{"unknown name later", `slots == 2 and hardwar == "r2"`, 16, "hardwar"},
		{"in UTF-8, by character", `id == "é" and nope == 1`, 15, "nope"},
		{"types", `slots == "2"`, 7, "mismatched types"},
		{"no truth", `slots`, 1, "bool"},
		{"open bracket", `(slots == 2`, 11, ""},
		{"open text", `id == "x`, 9, ""},
		{"assignment", `id = "x"`, 4, ""},
		{"clock", `now() == now()`, 1, "not allowed"},
		{"loop", `any(tags, # == "x")`, 1, "not allowed"},
		{"range", `slots in 1..1000000000`, 7, ""},
		{"long text", `repeat(id, 1000000) == ""`, 1, "not allowed"},
		{"power", `slots ** 9 == 1`, 7, "not allowed"},
		{"pattern from the device", `id matches hardware`, 12, "text in quotes"},
		{"pattern that is none", `id matches "("`, 1, ""},
		{"members of others", `tags.x == 1`, 6, "only attributes"},
		{"variable", `let x = 1; x == 1`, 5, "not allowed"},
		{"no such function", `foo(id)`, 1, ""},
		{"control", "id == \"a\nb\"", 9, "printed"},
		{"too long", `id == "` + strings.Repeat("x", MaxFilter) + `"`, MaxFilter + 1, "at most"},
		{"too many parts", strings.Repeat("slots == 1 or ", 60) + "slots == 2", 1, "parts"},
	} {
		_, err := ParseFilter(c.text)
		var f *FilterError
		if !errors.As(err, &f) || CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f.Column != c.column && c.name != "range" && c.name != "pattern that is none" || !strings.Contains(f.Reason, c.reason) || f.Reason == "" || strings.Contains(f.Reason, "\n") {
			t.Errorf("%s: column %d: %s, not %d", c.name, f.Column, f.Reason, c.column)
		}
		if lines := strings.Split(f.Caret(), "\n"); !strings.HasSuffix(lines[len(lines)-1], "^") {
			t.Errorf("%s: %q", c.name, f.Caret())
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`hardware == "r2" and "beta" in tags`)
	f.Add(`attributes["a"] matches "x+" ?? older("1")`)
	f.Add(`-slots > 1 ? true : false`)
	env := EnvOf(&Device{ID: "d", Tags: []string{"a"}}, nil, "p")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseFilter(text)
		if err != nil {
			if CodeOf(err) != CodeInvalid {
				t.Fatal(err)
			}
			return
		}
		a, err1 := p.Match(env)
		b, err2 := p.Match(env)
		if a != b || (err1 == nil) != (err2 == nil) {
			t.Fatalf("%q: %v %v, then %v %v", text, a, err1, b, err2)
		}
	})
}

// What a device says of its bootloader and how it is: with this poll, or last.
func TestFilterHealth(t *testing.T) {
	five := uint32(5)
	a := &NativeAsk{Rollback: true, FlashEncryption: true, SecureVersion: &five, Image: []byte{0xab, 1}}
	said := &Device{ID: "d", Health: Health{FreeRAM: 9000, BootReason: "brown-out", Battery: 20, Signal: -85}}
	for text, want := range map[string][2]bool{
		`free_ram < 8000`:                {false, true},
		`battery < 30 and battery > 0`:   {true, false},
		`signal < -80`:                   {true, false},
		`boot_reason == "brown-out"`:     {true, false},
		`rollback and not secure_boot`:   {true, false},
		`flash_encryption`:               {true, false},
		`secure_version >= 5`:            {true, false},
		`image == "ab01"`:                {true, false},
		`image == "" and free_ram == 0`:  {false, true},
		`battery == 0 and signal == 0`:   {false, true},
		`boot_reason in ["panic", ""]`:   {false, true},
		`signal >= -80 or not rollback`:  {false, true},
		`secure_version == 0`:            {false, true},
		`not flash_encryption`:           {false, true},
		`free_ram > 8000 and signal < 0`: {true, false},
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for i, env := range []*FilterEnv{EnvOf(said, a, "p"), EnvOf(&Device{ID: "d"}, nil, "p")} {
			if got, err := f.Match(env); err != nil || got != want[i] {
				t.Errorf("%s: %v %v", text, got, err)
			}
		}
	}
	// A poll's own word counts before the one that is stored.
	if d := asking(said, &NativeAsk{Health: Health{Battery: 90}}); d.Health != (Health{Battery: 90}) {
		t.Errorf("%+v", d.Health)
	}
	if d := asking(said, &NativeAsk{}); d.Health != said.Health {
		t.Errorf("%+v", d.Health)
	}
}

func TestCompareVersions(t *testing.T) {
	order := []string{"", "0.9", "1.2", "1.2.0", "1.2.0-rc2", "1.2.0-rc10", "1.9", "1.10", "2.0", "v1"}
	for i, a := range order {
		for j, b := range order {
			if got := CompareVersions(a, b); got != sign(i-j) {
				t.Errorf("%q to %q: %d", a, b, got)
			}
		}
	}
	if CompareVersions("1.02", "1.2") != 0 {
		t.Error("a leading zero counts")
	}
}
