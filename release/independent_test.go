package release

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/veraison/go-cose"

	"github.com/runnel-fota/runnel/internal/testenv"
)

// This file reads the vectors with the standard library, go-cose and a decoder
// of its own: nothing of ours but the vectors is used.

func readVectors(t *testing.T, name string, v any) {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(testenv.Root(), "testdata", "vectors", "native", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(p, v); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestVectorsIndependently checks every signature of every vector with go-cose,
// and every payload with a decoder of forty lines.
func TestVectorsIndependently(t *testing.T) {
	checked := 0
	for _, name := range []string{"keylist.json", "manifest.json", "sheet.json"} {
		var f vectorFile
		readVectors(t, name, &f)
		for n, k := range f.Keys {
			key := ed25519.NewKeyFromSeed(unhex(t, k.Seed))
			seed := sha256.Sum256([]byte("runnel test key, known to everybody: " + n))
			sum := sha256.Sum256(unhex(t, k.Public))
			if hex.EncodeToString(key.Public().(ed25519.PublicKey)) != k.Public || hex.EncodeToString(seed[:]) != k.Seed || hex.EncodeToString(sum[:8]) != k.KeyID {
				t.Errorf("%s: key %s", name, n)
			}
		}
		for _, o := range f.Objects {
			envelope := unhex(t, o.Envelope)
			var m cose.SignMessage
			if err := m.UnmarshalCBOR(envelope); err != nil {
				t.Errorf("%s, %s: %v", name, o.Name, err)
				continue
			}
			if hex.EncodeToString(m.Payload) != o.Payload || len(m.Signatures) != len(o.Signers) {
				t.Errorf("%s, %s: payload or signers", name, o.Name)
				continue
			}
			var verifiers []cose.Verifier
			for i, s := range o.Signers {
				v, err := cose.NewVerifier(cose.AlgorithmEdDSA, ed25519.PublicKey(unhex(t, f.Keys[s].Public)))
				if err != nil {
					t.Fatal(err)
				}
				verifiers = append(verifiers, v)
				if kid, _ := m.Signatures[i].Headers.Protected[cose.HeaderLabelKeyID].([]byte); hex.EncodeToString(kid) != f.Keys[s].KeyID {
					t.Errorf("%s, %s: kid of %s", name, o.Name, s)
				}
			}
			if err := m.Verify([]byte(f.Kind), verifiers...); err != nil {
				t.Errorf("%s, %s: %v", name, o.Name, err)
			}
			if err := m.Verify([]byte("runnel/other/1"), verifiers...); err == nil {
				t.Errorf("%s, %s: the kind does not count", name, o.Name)
			}
			checked += len(verifiers)
			got, rest := decode(t, m.Payload)
			a, _ := json.Marshal(got)
			b, _ := json.Marshal(o.Fields)
			if !bytes.Equal(a, b) || len(rest) != 0 {
				t.Errorf("%s, %s:\n%s\n%s", name, o.Name, a, b)
			}
			sum := sha256.Sum256(envelope)
			if hex.EncodeToString(sum[:]) != o.SHA256 {
				t.Errorf("%s, %s: digest", name, o.Name)
			}
		}
	}
	if checked < 25 {
		t.Errorf("only %d signatures were checked", checked)
	}
}

// decode reads one item of the profile into what JSON would have: maps by
// decimal key, bytes as hex.
func decode(t *testing.T, p []byte) (v any, rest []byte) {
	t.Helper()
	major, n := p[0]>>5, uint64(p[0]&31)
	p = p[1:]
	switch n {
	case 24:
		n, p = uint64(p[0]), p[1:]
	case 25:
		n, p = uint64(binary.BigEndian.Uint16(p)), p[2:]
	case 26:
		n, p = uint64(binary.BigEndian.Uint32(p)), p[4:]
	case 27:
		n, p = binary.BigEndian.Uint64(p), p[8:]
	}
	switch major {
	case 0:
		return n, p
	case 1:
		return -1 - int64(n), p
	case 2:
		return hex.EncodeToString(p[:n]), p[n:]
	case 3:
		return string(p[:n]), p[n:]
	case 4:
		a := []any{}
		for range n {
			v, p = decode(t, p)
			a = append(a, v)
		}
		return a, p
	case 5:
		m := map[string]any{}
		for range n {
			var k any
			k, p = decode(t, p)
			m[fmt.Sprint(k)], p = decode(t, p)
		}
		return m, p
	}
	t.Fatalf("major type %d", major)
	return nil, nil
}

// TestReleaseVector reads the release file with archive/tar.
func TestReleaseVector(t *testing.T) {
	var v vectorRelease
	readVectors(t, "release.json", &v)
	p, err := os.ReadFile(filepath.Join(testenv.Root(), "testdata", "vectors", "native", v.File))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(p)
	if hex.EncodeToString(sum[:]) != v.SHA256 || len(p) != v.Size {
		t.Error("another file")
	}
	r := tar.NewReader(bytes.NewReader(p))
	for i := 0; ; i++ {
		h, err := r.Next()
		if err == io.EOF {
			if i != len(v.Members) || i != 5 {
				t.Errorf("%d members", i)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		if m := v.Members[i]; m.Name != h.Name || m.Size != len(b) || m.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("member %d: %+v", i, m)
		}
	}
}
