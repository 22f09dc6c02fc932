package native

import (
	"bytes"
	"testing"
)

// In a chip the field and the offer are there where a program asks for them.
func init() { MakesDerived() }

// What a poll says of derived streams and can't be read is no word on them: the poll
// stands, and the device is offered raw streams.
func TestDerivedShelf(t *testing.T) {
	body := load(t).body(t, "poll-derived")
	mac := macOf(t, MessagePoll)
	m := split(t, body[:len(body)-MACSize])
	for _, c := range []struct {
		name, cbor string
		want       Derived
	}{
		{"as it is", "a3 0001 0106 02193c00", Derived{1, 6, 15360}},
		{"a note behind it", "a4 0001 0106 0205 2000", Derived{1, 6, 5}},
		{"a number", "05", Derived{}},
		{"an empty map", "a0", Derived{}},
		{"no RAM", "a2 0001 0106", Derived{}},
		{"a version of 256", "a3 00190100 0106 0205", Derived{}},
		{"profiles of 9 bits", "a3 0001 01190100 0205", Derived{}},
		{"RAM above 32 bits", "a3 0001 0106 021b0000000100000000", Derived{}},
		{"a field that is not known", "a4 0001 0106 0205 0300", Derived{}},
	} {
		m[derivedKey] = unhex(t, string(bytes.ReplaceAll([]byte(c.cbor), []byte(" "), nil)))
		poll := Poll{Derived: Derived{Version: 9}}
		if err := poll.Decode(sealed(m.join(), MessagePoll, mac), mac); err != 0 || poll.Derived != c.want {
			t.Errorf("%s: %+v, %v", c.name, poll.Derived, err)
		}
	}
}

func TestDerivedTakes(t *testing.T) {
	d := Derived{Version: 1, Profiles: 1<<1 | 1<<2}
	for profile, want := range map[uint8]bool{0: false, 1: true, 2: true, 3: false, 8: false, 255: false} {
		if d.Takes(profile) != want {
			t.Errorf("profile %d: %v", profile, !want)
		}
	}
	if d.Version = 0; d.Takes(1) {
		t.Error("a device that takes none takes one")
	}
}
