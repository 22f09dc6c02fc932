package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/testenv"
)

var update = flag.Bool("update", false, "write testdata/vectors/native anew")

const aboutKeys = "Test keys: everybody has them, none may ever be in a real key list. Ed25519 from the seed, which is SHA-256 of " +
	"'runnel test key, known to everybody: ' and the key's name."

// The vectors as JSON. Bytes are hex.
type (
	vectorKey struct {
		Seed   string `json:"seed"`
		Public string `json:"public"`
		KeyID  string `json:"kid"`
	}
	vectorObject struct {
		Name     string   `json:"name"`
		Signers  []string `json:"signers"`
		Payload  string   `json:"payload"`
		Envelope string   `json:"envelope"`
		SHA256   string   `json:"sha256"` // of the envelope
		// Fields of the payload by key, as an independent reader must see them.
		Fields any `json:"fields"`
		// Held names the list that the object is held against; of a key list, the one before.
		Held   string `json:"held,omitempty"`
		Result string `json:"result,omitempty"` // accepted, or why not
	}
	vectorStore struct {
		List    string `json:"list"`
		Product string `json:"product"`
		Store   string `json:"store"`
	}
	vectorFile struct {
		About   string               `json:"about"`
		Kind    string               `json:"external_aad"`
		Keys    map[string]vectorKey `json:"keys"`
		Objects []vectorObject       `json:"objects"`
		Stores  []vectorStore        `json:"trust_stores,omitempty"`
	}
	vectorMember struct {
		Name   string `json:"name"`
		Size   int    `json:"size"`
		SHA256 string `json:"sha256"`
	}
	vectorRelease struct {
		About   string         `json:"about"`
		File    string         `json:"file"`
		Size    int            `json:"size"`
		SHA256  string         `json:"sha256"`
		Root    string         `json:"root_key"` // the one root, public
		Members []vectorMember `json:"members"`
	}
)

func vectorKeys(names ...string) map[string]vectorKey {
	keys := map[string]vectorKey{}
	for _, n := range names {
		id := KeyID(public(n))
		keys[n] = vectorKey{Seed: hex.EncodeToString(testKey(n).Seed()), Public: hex.EncodeToString(public(n)), KeyID: hex.EncodeToString(id[:])}
	}
	return keys
}

func object(t *testing.T, name string, kind manifest.Kind, e encoder, fields any, signers ...string) vectorObject {
	t.Helper()
	p, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	env := sealed(t, kind, e, signers...)
	sum := sha256.Sum256(env)
	return vectorObject{Name: name, Signers: signers, Payload: hex.EncodeToString(p), Envelope: hex.EncodeToString(env), SHA256: hex.EncodeToString(sum[:]), Fields: fields}
}

type (
	fields = map[string]any
	items  = []any
)

func listFields(l *KeyList) fields {
	roots, keys, products := items{}, items{}, items{}
	for _, r := range l.Roots {
		roots = append(roots, fields{"0": -8, "1": hex.EncodeToString(r)})
	}
	for _, k := range l.Keys {
		f := fields{"0": -8, "1": hex.EncodeToString(k.Public), "2": k.Roles}
		if len(k.Products) > 0 {
			f["3"] = k.Products
		}
		keys = append(keys, f)
	}
	for _, p := range l.Products {
		products = append(products, fields{"0": p.Name, "1": p.Threshold, "2": p.Epoch, "3": p.Floor})
	}
	return fields{"0": l.Version, "1": l.Generation, "2": l.M, "3": roots, "4": keys, "5": products}
}

func manifestFields(m *Manifest) fields {
	hardware := items{}
	for _, h := range m.Hardware {
		hardware = append(hardware, hex.EncodeToString(h))
	}
	im := &m.Image
	image := fields{"0": "app", "1": im.Format, "3": im.Digest.String(), "4": im.Size, "7": im.Streams[0].Chunk, "8": im.Streams[0].Root.String()}
	if im.Format == manifest.FormatESP {
		image["2"] = im.Chip
	}
	if im.Slot != nil {
		image["5"] = *im.Slot
	}
	if im.Address != nil {
		image["6"] = *im.Address
	}
	if len(im.Streams) == 2 {
		image["9"], image["10"] = im.Streams[1].Chunk, im.Streams[1].Root.String()
	}
	f := fields{"0": m.Product, "1": hardware, "2": m.Version, "3": m.Epoch, "4": m.Sequence, "5": m.SecurityVersion, "6": items{image},
		"7": fields{"0": bit(m.Confirm.Contact), "1": m.Confirm.Seconds}}
	if m.SignedAt != 0 {
		f["-1"] = m.SignedAt
	}
	return f
}

// refusal is the cause alone: the words around it may change.
func refusal(err error) string {
	var cause manifest.Error
	if errors.As(err, &cause) {
		return "refused: " + cause.Error()
	}
	return "refused"
}

// makeVectors makes every file of testdata/vectors/native that is ours.
func makeVectors(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	put := func(name string, v any) {
		p, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		files[name] = append(p, '\n')
	}
	base := func(version, generation uint32, m int, roots ...string) *KeyList {
		return list(version, generation, m, roots...)
	}
	lists := []struct {
		name, held string
		l          *KeyList
		signers    []string
	}{
		{"first", "", base(1, 1, 2, "root-1", "root-2", "root-3"), []string{"root-1", "root-3"}},
		{"same roots, higher version", "first", base(4, 1, 2, "root-3", "root-2", "root-1"), []string{"root-2", "root-3"}},
		{"new roots", "first", base(5, 2, 2, "root-1", "root-4", "root-5"), []string{"root-1", "root-2", "root-4"}},
		{"one root of two", "first", base(2, 1, 2, "root-1", "root-2", "root-3"), []string{"root-1"}},
		{"one root and a stranger", "first", base(2, 1, 2, "root-1", "root-2", "root-3"), []string{"root-1", "stranger"}},
		{"new roots without their quorum", "first", base(5, 2, 2, "root-4", "root-5", "root-6"), []string{"root-1", "root-2", "root-4"}},
		{"new roots without a new generation", "first", base(5, 1, 2, "root-1", "root-2", "root-4"), []string{"root-1", "root-2"}},
		{"two generations on", "first", base(9, 3, 2, "root-1", "root-2", "root-3"), []string{"root-1", "root-2"}},
		{"older", "new roots", base(4, 1, 2, "root-1", "root-2", "root-3"), []string{"root-1", "root-2"}},
	}
	kl := vectorFile{About: "Key lists (docs/format/keylist.md) and what a device does with them that holds the list named held; without one, " +
		"the roots root-1 to root-3 of generation 1, m 2. " + aboutKeys,
		Kind: manifest.KindKeys.Label(), Keys: vectorKeys("root-1", "root-2", "root-3", "root-4", "root-5", "root-6", "release", "second", "stream", "stranger")}
	trusts := map[string]*Trust{}
	baked, err := TrustRoots(1, 2, publics("root-1", "root-2", "root-3")...)
	if err != nil {
		t.Fatal(err)
	}
	trusts[""] = baked
	for _, c := range lists {
		o := object(t, c.name, manifest.KindKeys, c.l, listFields(c.l), c.signers...)
		o.Held, o.Result = c.held, "accepted"
		env, _ := hex.DecodeString(o.Envelope)
		if tr, err := trusts[c.held].Accept(env); err == nil {
			trusts[c.name] = tr
		} else {
			o.Result = refusal(err)
		}
		kl.Objects = append(kl.Objects, o)
	}
	for _, s := range []vectorStore{{List: "", Product: ""}, {List: "first", Product: "acme/pump"}, {List: "first", Product: "acme/valve"}, {List: "new roots", Product: "acme/lamp"}} {
		p, err := trusts[s.List].Store(s.Product)
		if err != nil {
			t.Fatal(err)
		}
		s.Store = hex.EncodeToString(p)
		kl.Stores = append(kl.Stores, s)
	}
	put("keylist.json", kl)

	image := testImage(2600)
	full := testManifest(t, image, 1024, 4096)
	slot, address := uint8(1), uint32(0x110000)
	full.Hardware = append(full.Hardware, []byte{0xC3, 0x01})
	full.Image.Format, full.Image.Chip, full.Image.Slot, full.Image.Address = manifest.FormatESP, 5, &slot, &address
	small := testManifest(t, image, 512)
	small.SignedAt, small.Confirm = 0, Confirm{Seconds: 10}
	valve := testManifest(t, image, 1024)
	valve.Product, valve.Epoch = "acme/valve", 0
	oldEpoch := testManifest(t, image, 1024)
	oldEpoch.Epoch = 1
	mf := vectorFile{About: "Manifests (docs/format/manifest.md), held against the key list 'first' of keylist.json: signatures, epoch, floor. " + aboutKeys,
		Kind: manifest.KindManifest.Label(), Keys: vectorKeys("release", "second", "stream", "stranger", "root-1")}
	for _, c := range []struct {
		name    string
		m       *Manifest
		signers []string
	}{
		{"everything", full, []string{"release"}}, {"smallest", small, []string{"second"}}, {"two signers of two", valve, []string{"release", "second"}},
		{"a stranger does no harm", small, []string{"stranger", "release"}}, {"one signer of two", valve, []string{"release"}},
		{"a stream key", small, []string{"stream"}}, {"a root", small, []string{"root-1"}}, {"an old epoch", oldEpoch, []string{"release"}},
	} {
		o := object(t, c.name, manifest.KindManifest, c.m, manifestFields(c.m), c.signers...)
		o.Held, o.Result = "first", "accepted"
		env, _ := hex.DecodeString(o.Envelope)
		if _, _, err := trusts["first"].Manifest(env); err != nil {
			o.Result = refusal(err)
		}
		mf.Objects = append(mf.Objects, o)
	}
	put("manifest.json", mf)

	patch := testImage(700)
	ps := testSheet(t, small, patch)
	cs := *ps
	cs.Kind, cs.BaseDigest, cs.BaseSize = manifest.StreamCompressed, Hash{}, 0
	sf := vectorFile{About: "Stream sheets (docs/format/sheet.md) of acme/pump, held against the key list 'first' of keylist.json. " + aboutKeys,
		Kind: manifest.KindSheet.Label(), Keys: vectorKeys("release", "stream", "stranger")}
	sheetFields := func(s *Sheet) fields {
		f := fields{"0": s.ImageRoot.String(), "1": s.Kind, "2": s.Profile, "3": s.RAM, "6": s.Length, "7": s.Chunk, "8": s.Root.String()}
		if s.Kind == manifest.StreamPatch {
			f["4"], f["5"] = s.BaseDigest.String(), s.BaseSize
		}
		return f
	}
	for _, c := range []struct {
		name   string
		s      *Sheet
		signer string
	}{{"a patch", ps, "stream"}, {"compressed", &cs, "release"}, {"by a stranger", ps, "stranger"}} {
		o := object(t, c.name, manifest.KindSheet, c.s, sheetFields(c.s), c.signer)
		o.Held, o.Result = "first", "accepted"
		env, _ := hex.DecodeString(o.Envelope)
		if _, err := trusts["first"].Sheet(env, "acme/pump"); err != nil {
			o.Result = refusal(err)
		}
		sf.Objects = append(sf.Objects, o)
	}
	put("sheet.json", sf)

	file, _ := testFile(t)
	files["release.runnel"] = file
	sum := sha256.Sum256(file)
	rf := vectorRelease{About: "A release file (docs/format/release-file.md) with a key list, an image of random bytes and a derived stream. " + aboutKeys,
		File: "release.runnel", Size: len(file), SHA256: hex.EncodeToString(sum[:]), Root: hex.EncodeToString(public("root"))}
	r := &tarReader{r: bytes.NewReader(file)}
	for {
		name, size, err := r.next()
		if err != nil {
			break
		}
		p, err := r.all()
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(p)
		rf.Members = append(rf.Members, vectorMember{name, int(size), hex.EncodeToString(sum[:])})
	}
	put("release.json", rf)
	return files
}

// TestVectors wants the writers to make the committed vectors again.
func TestVectors(t *testing.T) {
	dir := filepath.Join(testenv.Root(), "testdata", "vectors", "native")
	for name, p := range makeVectors(t) {
		path := filepath.Join(dir, name)
		if *update {
			if err := os.WriteFile(path, p, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, want) {
			t.Errorf("%s is not what is written now; if that is meant: go test ./release -run TestVectors -update", name)
		}
	}
}
