package serial

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"
)

// malformed are lines with one defect each, named after it. The frame that they are
// made from is a good one: "good" says so.
var malformed = []struct{ name, line string }{
	{"empty", "\xC0\xC0\xC0"},
	{"crc-wrong", damage(-2, 1)},
	{"op-changed", damage(1, 1)},
	{"sequence-changed", damage(2, 1)},
	{"session-changed", damage(3, 1)},
	{"payload-changed", damage(5, 1)},
	{"crc-cut", cut(4)},
	{"crc-of-the-payload-alone", "\xC0\x05\x01\x02\x00abcde" + le(crc32.ChecksumIEEE([]byte("abcde"))) + "\xC0"},
	{"crc-big-endian", "\xC0\x05\x01\x02\x00abcde" + reversed() + "\xC0"},
	{"payload-cut", strings.Replace(good, "c", "", 1)},
	{"payload-doubled", strings.Replace(good, "c", "cc", 1)},
	{"header-cut", "\xC0\x05\x01\x02" + le(crc32.ChecksumIEEE([]byte{5, 1, 2})) + "\xC0"},
	{"crc-of-nothing", "\xC0\x00\x00\x00\x00\xC0"},
	{"zeros", "\xC0" + strings.Repeat("\x00", 8) + "\xC0"},
	{"escape-of-nothing", strings.Replace(good, "c", "\xDBc", 1)},
	{"escape-at-the-end", good[:len(good)-1] + "\xDB\xC0"},
	{"escape-alone", "\xC0\xDB\xC0"},
	{"end-in-the-middle", strings.Replace(good, "c", "\xC0", 1)},
	{"no-end", good[:len(good)-1]},
	{"too-long", string(frame(OpSay, 1, 2, []byte("abcdefghijklmnop")))},
}

var good = string(frame(OpSay, 1, 2, []byte("abcde")))

func le(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }

func reversed() string {
	b := []byte(good[len(good)-5 : len(good)-1])
	return string([]byte{b[3], b[2], b[1], b[0]})
}

func damage(at int, by byte) string {
	p := []byte(good)
	if at < 0 {
		at += len(p)
	}
	p[at] ^= by
	return string(p)
}

func cut(n int) string { return good[:len(good)-1-n] + "\xC0" }

func TestMalformedFrames(t *testing.T) {
	take := func(line string) (whole, bad int) {
		var d Decoder
		var a [HeaderSize]byte
		var b [10]byte
		for i := range len(line) {
			switch d.Feed(line[i], a[:], b[:]) {
			case Whole:
				whole++
			case Bad:
				bad++
			}
		}
		return whole, bad
	}
	if whole, bad := take(good); whole != 1 || bad != 0 {
		t.Fatalf("good: %d frames, %d damaged", whole, bad)
	}
	for _, m := range malformed {
		whole, bad := take(m.line)
		if whole != 0 {
			t.Errorf("%s was taken", m.name)
		}
		if none := m.name == "empty" || m.name == "no-end"; none != (bad == 0) {
			t.Errorf("%s: damaged %d times", m.name, bad)
		}
	}
}

// TestMalformedCalls: right frames with a payload that is none, at the bridge.
func TestMalformedCalls(t *testing.T) {
	sent := "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x01\x01\x01\x01/xdntm"
	var r Request
	if e := r.Decode([]byte(sent)); e != 0 {
		t.Fatalf("the good one: %v", e)
	}
	for name, p := range map[string]string{
		"empty":             "",
		"head-cut":          sent[:13],
		"last-part-cut":     sent[:len(sent)-1],
		"no-target":         strings.Replace(sent, "\x02\x01\x01\x01\x01/x", "\x00\x01\x01\x01\x01", 1),
		"target-too-long":   strings.Replace(sent, "\x02\x01", "\xFF\x01", 1),
		"unknown-flag":      "\x02" + sent[1:],
		"body-with-a-range": "\x01" + sent[1:] + "body",
		"range-backwards":   "\x01\x05\x00\x00\x00\x04" + sent[6:],
		"too-long":          sent + strings.Repeat("b", MaxPayload),
	} {
		if e := r.Decode([]byte(p)); e != ErrForm {
			t.Errorf("request %s: %v", name, e)
		}
	}
	for name, p := range map[string]string{"empty": "", "cut": "\x00\x00\x00\x00\x01", "none": "\x00\x00\x00\x00\x00\x00", "too-many": "\x00\x00\x00\x00\x41\x04",
		"longer": "\x00\x00\x00\x00\x01\x00\x00"} {
		if _, _, e := DecodeRead([]byte(p)); e != ErrForm {
			t.Errorf("read %s: %v", name, e)
		}
	}
	for name, p := range map[string]string{"empty": "", "cut": "123456", "longer": "12345678"} {
		if _, _, _, _, e := DecodeSay([]byte(p)); e != ErrForm {
			t.Errorf("say %s: %v", name, e)
		}
	}
}
