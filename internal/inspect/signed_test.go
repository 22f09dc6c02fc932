package inspect

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/testenv"
	"github.com/runnel-fota/runnel/release"
)

func vector(t *testing.T, name string) []byte {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(testenv.Root(), "testdata", "vectors", "native", name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSignedObjects reads the vectors: each object is told by its content.
func TestSignedObjects(t *testing.T) {
	for name, kind := range map[string]string{"keylist.json": KindKeyList, "manifest.json": KindManifest, "sheet.json": KindSheet} {
		var f struct {
			Objects []struct{ Name, Envelope, SHA256 string }
		}
		if err := json.Unmarshal(vector(t, name), &f); err != nil {
			t.Fatal(err)
		}
		if len(f.Objects) == 0 {
			t.Errorf("%s holds nothing", name)
		}
		for _, o := range f.Objects {
			p, err := hex.DecodeString(o.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			r := File(p)
			if r.Kind != kind || r.Error != "" || r.SHA256 != o.SHA256 || len(r.Signatures) == 0 ||
				(r.KeyList != nil) != (kind == KindKeyList) || (r.Manifest != nil) != (kind == KindManifest) || (r.Sheet != nil) != (kind == KindSheet) {
				t.Errorf("%s, %s: %+v", name, o.Name, r)
			}
			for n := range p { // no prefix is one, and none panics
				if n > 0 && File(p[:n]).Error == "" {
					t.Errorf("%s, %s: %d of %d bytes are enough", name, o.Name, n, len(p))
				}
			}
		}
	}
}

func TestReleaseAndItsStreams(t *testing.T) {
	p := vector(t, "release.runnel")
	r := File(p)
	if r.Kind != KindRelease || r.Error != "" || r.Manifest == nil || r.KeyList == nil || len(r.Streams) != 3 || r.Streams[2].Kind != "patch" {
		t.Fatalf("%+v", r)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"manifest":{"product":"acme/pump"`, `"hardware":["board-1"]`, `"file_sha256":"`, `"chunk_bytes":1024`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the JSON lacks %s: %s", want, text)
		}
	}
	// The image of the vector is where the archive has it: behind list and manifest.
	image := bytes.Index(p, []byte("image.bin\x00")) + 512
	var file bytes.Buffer
	root, sum, length, err := release.BuildStream(&file, bytes.NewReader(p[image:image+int(r.Manifest.Image.Size)]), r.Manifest.Image.Size, 1024)
	if err != nil || hex.EncodeToString(root[:]) != r.Streams[0].Root || hex.EncodeToString(sum[:]) != r.Streams[0].FileSHA256 || length != r.Streams[0].FileBytes {
		t.Fatalf("%v: %x %x %d, %+v", err, root, sum, length, r.Streams[0])
	}
	s := StreamFile(context.Background(), bytes.NewReader(file.Bytes()), length, r.Signed, nil)
	if s.Error != "" || s.Kind != KindStream || len(s.Streams) != 1 || s.Streams[0] != r.Streams[0] {
		t.Errorf("%+v", s)
	}
	bad := bytes.Clone(file.Bytes())
	bad[1100] ^= 1
	if s := StreamFile(context.Background(), bytes.NewReader(bad), length, r.Signed, nil); !strings.Contains(s.Error, "record 1") {
		t.Errorf("a spoilt record: %+v", s)
	}
	if s := StreamFile(context.Background(), bytes.NewReader(nil), 1, r.Signed, nil); !strings.Contains(s.Error, "none of the streams") {
		t.Errorf("another length: %+v", s)
	}
	spoilt := bytes.Clone(p)
	spoilt[image] ^= 1
	if r := File(spoilt); !strings.Contains(r.Error, "SHA-256") {
		t.Errorf("a spoilt image: %+v", r)
	}
	if r := File(p[:len(p)-1]); r.Offset == nil || !strings.Contains(r.Error, "ends early") {
		t.Errorf("a cut file: %+v", r)
	}
}
