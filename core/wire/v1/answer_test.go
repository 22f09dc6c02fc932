package v1

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

func read(k Kind, chunk []byte, text string, piece int) (*Answer, error) {
	a := new(Answer)
	a.Begin(k, chunk)
	for i := 0; i < len(text); i += piece {
		if err := a.Feed([]byte(text[i:min(i+piece, len(text))])); err != nil {
			return a, err
		}
	}
	return a, a.End()
}

const hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

func TestManifest(t *testing.T) {
	cases := []struct {
		name, text string
		want       Offer
		version    string
	}{
		{"nothing", `{}`, Offer{}, ""},
		{"null", ` { "fota" : null } `, Offer{}, ""},
		{"the original's", `{"fota":{"manifest":{"version":"1.2.0","size":1068032,"hash":"` + hash + `","chunk_size":1024,"uploaded_at":"2026-11-23T18:54:47Z"}}}`,
			Offer{Present: true, Size: 1068032, ChunkSize: 1024, Stamp: uint32(time.Date(2026, 11, 23, 18, 54, 47, 0, time.UTC).Unix())}, "1.2.0"},
		{"number as stamp, fraction, no chunk size", `{"fota":{"manifest":{"version":"é","size":1,"hash":"` + strings.ToUpper(hash) + `","uploaded_at":1700000000.25,"total_chunks":7}}}`,
			Offer{Present: true, Size: 1, ChunkSize: 1024, Stamp: 1700000000}, "é"},
		{"unknown members", `{"a":[1,{"b":[]},-2.5e+3,"x\n"],"fota":{"x":{"size":9},"manifest":{"size":1,"hash":"` + hash + `","y":{"hash":1}},"z":true}}`,
			Offer{Present: true, Size: 1, ChunkSize: 1024}, ""},
		{"unreadable stamp", `{"fota":{"manifest":{"size":1,"hash":"` + hash + `","uploaded_at":"yesterday"}}}`,
			Offer{Present: true, Size: 1, ChunkSize: 1024}, ""},
	}
	for _, c := range cases {
		for _, piece := range []int{1, 7, 4096} {
			a, err := read(KindManifest, nil, c.text, piece)
			if err != nil {
				t.Errorf("%s, pieces of %d: %v", c.name, piece, err)
				continue
			}
			if c.want.Present {
				if hex.EncodeToString(a.Hash[:]) != hash {
					t.Errorf("%s, pieces of %d: hash %x", c.name, piece, a.Hash)
				}
				c.want.VersionLen = uint8(copy(c.want.Version[:], c.version))
			}
			if a.Offer != c.want {
				t.Errorf("%s, pieces of %d: %+v, want %+v", c.name, piece, a.Offer, c.want)
			}
		}
	}
}

func TestChunkAnyPieces(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	for i := range 300 {
		data := make([]byte, r.Intn(1025))
		r.Read(data)
		mac := hex.EncodeToString(data[:0]) + hash
		text := fmt.Sprintf(`{"chunk_number":%d,"data":"%s","mac":"%s","hmac":"%s","size":%d}`,
			i, base64.StdEncoding.EncodeToString(data), mac, mac, len(data))
		buf := make([]byte, 1024)
		a, err := read(KindChunk, buf, text, 1+r.Intn(300))
		if err != nil {
			t.Fatalf("chunk of %d bytes: %v", len(data), err)
		}
		if !bytes.Equal(buf[:a.Length], data) || a.Number != uint32(i) || a.Size != uint32(len(data)) ||
			hex.EncodeToString(a.Hash[:]) != mac {
			t.Fatalf("chunk of %d bytes read wrong", len(data))
		}
	}
}

// The shelf: one defect a case.
func TestMalformed(t *testing.T) {
	mac := `"mac":"` + hash + `"`
	man := func(s string) string { return `{"fota":{"manifest":{` + s + `}}}` }
	cases := []struct {
		name string
		kind Kind
		text string
		want error
	}{
		{"empty", KindManifest, ``, ErrMissing},
		{"cut", KindManifest, `{"fota":`, ErrMissing},
		{"html", KindManifest, `<html>`, ErrField},
		{"array", KindManifest, `[]`, ErrField},
		{"trailing", KindManifest, `{} x`, ErrTrailing},
		{"two objects", KindManifest, `{}{}`, ErrTrailing},
		{"trailing comma", KindManifest, `{"a":1,}`, ErrSyntax},
		{"comma first", KindManifest, `{,}`, ErrSyntax},
		{"wrong bracket", KindManifest, `{"a":[1}`, ErrSyntax},
		{"leading zero", KindManifest, `{"a":01}`, ErrSyntax},
		{"bare minus", KindManifest, `{"a":-}`, ErrSyntax},
		{"bad literal", KindManifest, `{"a":trux}`, ErrSyntax},
		{"bad escape", KindManifest, `{"a":"\x"}`, ErrSyntax},
		{"control character", KindManifest, "{\"a\":\"\n\"}", ErrSyntax},
		{"too deep", KindManifest, `{"a":[[[[[[[[1]]]]]]]]}`, ErrDepth},
		{"no size", KindManifest, man(`"hash":"` + hash + `"`), ErrMissing},
		{"no hash", KindManifest, man(`"size":1`), ErrMissing},
		{"size negative", KindManifest, man(`"size":-1`), ErrField},
		{"size beyond 32 bits", KindManifest, man(`"size":4294967296`), ErrField},
		{"size as text", KindManifest, man(`"size":"1"`), ErrField},
		{"size fraction", KindManifest, man(`"size":1.0`), ErrField},
		{"size twice", KindManifest, man(`"size":1,"size":2`), ErrDuplicate},
		{"hash short", KindManifest, man(`"hash":"` + hash[1:] + `"`), ErrField},
		{"hash long", KindManifest, man(`"hash":"` + hash + `0"`), ErrField},
		{"hash no hex", KindManifest, man(`"hash":"` + hash[1:] + `g"`), ErrField},
		{"manifest as array", KindManifest, `{"fota":{"manifest":[]}}`, ErrField},
		{"no mac", KindChunk, `{"data":"AAAA"}`, ErrMissing},
		{"no data", KindChunk, `{` + mac + `}`, ErrMissing},
		{"macs differ", KindChunk, `{"data":"AAAA",` + mac + `,"hmac":"` + strings.Repeat("0", 64) + `"}`, ErrDuplicate},
		{"mac null", KindChunk, `{"mac":null}`, ErrField},
		{"base64 unpadded", KindChunk, `{"data":"AAA"}`, ErrBase64},
		{"base64 pad first", KindChunk, `{"data":"=AAA"}`, ErrBase64},
		{"base64 behind pad", KindChunk, `{"data":"AA==AAAA"}`, ErrBase64},
		{"base64 three pads", KindChunk, `{"data":"A==="}`, ErrBase64},
		{"base64 loose bits", KindChunk, `{"data":"AB=="}`, ErrBase64},
		{"base64 url alphabet", KindChunk, `{"data":"AA-_"}`, ErrBase64},
		{"too long", KindChunk, `{"data":"` + strings.Repeat("AAAA", 6) + `"}`, ErrTooLong},
		{"rollback as text", KindRollback, `{"rollback_required":"true"}`, ErrField},
		{"no rollback", KindRollback, `{}`, ErrMissing},
		{"no status", KindAck, `{}`, ErrMissing},
	}
	for _, c := range cases {
		for _, piece := range []int{1, 4096} {
			if _, err := read(c.kind, make([]byte, 16), c.text, piece); !errors.Is(err, c.want) {
				t.Errorf("%s, pieces of %d: %v, want %v", c.name, piece, err, c.want)
			}
		}
	}
}

func TestSmallAnswers(t *testing.T) {
	if a, err := read(KindRollback, nil, `{"rollback_required":true,"reason":"x \"y\" \u00e9"}`, 3); err != nil || !a.Rollback {
		t.Errorf("rollback: %v", err)
	}
	if a, err := read(KindRollback, nil, `{"rollback_required":false}`, 3); err != nil || a.Rollback {
		t.Errorf("no rollback: %v", err)
	}
	for text, want := range map[string]bool{`{"status":"success"}`: true, `{"status":"successful"}`: false, `{"status":"succ"}`: false, `{"status":"error"}`: false} {
		if a, err := read(KindAck, nil, text, 2); err != nil || a.Success != want {
			t.Errorf("%s: success %v, %v", text, a.Success, err)
		}
	}
}

func TestRequests(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	var w Wire
	w.SetIdentity(Identity{ID: "dev-1", Signed: true, Key: key})
	buf := make([]byte, 448)
	r, err := w.Chunk(buf, 1042, 18446744073709551615, 1700000000)
	if err != nil {
		t.Fatal(err)
	}
	if r.Method != "GET" || string(r.Target) != "/api/inverter/fota/chunk?chunk_number=1042" || r.DeviceID != "dev-1" {
		t.Errorf("%s %s %s", r.Method, r.Target, r.DeviceID)
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte("/api/inverter/fota/chunk?chunk_number=1042184467440737095516151700000000"))
	if string(r.MAC) != hex.EncodeToString(m.Sum(nil)) {
		t.Error("X-MAC is wrong")
	}
	if _, err := w.Manifest(make([]byte, 40), 1, 1); !errors.Is(err, ErrSpace) {
		t.Errorf("small buffer: %v", err)
	}
	rep := Report{HasChunks: true, ChunkReceived: 3, TotalChunks: 9, HasProgress: true, Progress: 33, HasVerified: true,
		BootStatus: BootFailed, NewVersion: []byte("v\"\\\x01\xc3"), HasBootCount: true, BootCount: 5, Rollback: true, Error: `a "b"`}
	r, err = w.Report(buf, &rep, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]map[string]any
	if err := json.Unmarshal(r.Body, &got); err != nil {
		t.Fatalf("%s: %v", r.Body, err)
	}
	want := map[string]any{"chunk_received": 3.0, "total_chunks": 9.0, "progress": 33.0, "verified": false, "boot_status": "failed",
		"new_version": `v"\??`, "boot_count": 5.0, "rollback": true, "error": `a "b"`}
	if fmt.Sprint(got["fota_status"]) != fmt.Sprint(want) {
		t.Errorf("report %v, want %v", got["fota_status"], want)
	}
	var silent Wire
	silent.SetIdentity(Identity{Signed: true, Key: key})
	if r, _ := silent.Manifest(buf, 1, 1); r.DeviceID != "" || len(r.MAC) != 0 || len(r.Nonce) != 0 {
		t.Error("a silent device sends headers")
	}
}

func TestMemory(t *testing.T) {
	t.Logf("Answer %d bytes, Wire %d, Request %d", unsafe.Sizeof(Answer{}), unsafe.Sizeof(Wire{}), unsafe.Sizeof(Request{}))
	var w Wire
	w.SetIdentity(Identity{ID: "d", Signed: true, Key: make([]byte, 32)})
	buf, chunk := make([]byte, 448), make([]byte, 1024)
	text := []byte(`{"chunk_number":1,"data":"` + base64.StdEncoding.EncodeToString(make([]byte, 1024)) + `","mac":"` + hash + `"}`)
	var a Answer
	var out [32]byte
	if n := chiptest.Allocs(20, func() {
		if _, err := w.Chunk(buf, 1, 2, 3); err != nil {
			t.Fatal(err)
		}
		a.Begin(KindChunk, chunk)
		if a.Feed(text) != nil || a.End() != nil {
			t.Fatal("refused")
		}
		w.ChunkMAC(chunk, &out)
	}); n != 0 {
		t.Errorf("%v allocations a chunk", n)
	}
}

// FuzzAnswer: never a panic, never past the buffer, the same in any pieces, and
// what is accepted is JSON for the standard library too.
func FuzzAnswer(f *testing.F) {
	f.Add(`{"fota":{"manifest":{"version":"1","size":1,"hash":"`+hash+`"}}}`, uint8(0), uint8(3))
	f.Add(`{"chunk_number":1,"data":"AAAA","mac":"`+hash+`","size":3}`, uint8(1), uint8(1))
	f.Add(`{"rollback_required":true,"reason":"\u00e9\\"}`, uint8(2), uint8(2))
	f.Add(`{"status":"success","x":[1,-2.5e3,null,{}]}`, uint8(3), uint8(9))
	f.Fuzz(func(t *testing.T, text string, kind, piece uint8) {
		back := bytes.Repeat([]byte{0xA5}, 64)
		k := Kind(kind % 4)
		a, err := read(k, back[:32], text, int(piece)%16+1)
		if !bytes.Equal(back[32:], bytes.Repeat([]byte{0xA5}, 32)) {
			t.Fatal("written past the chunk buffer")
		}
		b, err2 := read(k, make([]byte, 32), text, len(text)+1)
		if !errors.Is(err, err2) && err != err2 {
			t.Fatalf("in pieces %v, whole %v", err, err2)
		}
		if err != nil {
			return
		}
		if a.Offer != b.Offer || a.Length != b.Length || a.Hash != b.Hash {
			t.Fatal("pieces change the result")
		}
		if !json.Valid([]byte(text)) {
			t.Fatalf("accepted, but no JSON: %q", text)
		}
	})
}
