package release

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
)

// The curve -x^2 + y^2 = 1 + d x^2 y^2 over 2^255-19, in plain arithmetic.
type curve struct{ p, d *big.Int }

func newCurve() curve {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	d.Mul(d, big.NewInt(-121665)).Mod(d, p)
	return curve{p, d}
}

func (c curve) mul(a, b *big.Int) *big.Int { return new(big.Int).Mod(new(big.Int).Mul(a, b), c.p) }

// xx is x^2 of the points with the coordinate y.
func (c curve) xx(y *big.Int) *big.Int {
	y2 := c.mul(y, y)
	den := new(big.Int).Add(c.mul(c.d, y2), big.NewInt(1))
	return c.mul(new(big.Int).Sub(y2, big.NewInt(1)), new(big.Int).ModInverse(den, c.p))
}

// double is y of 2P: (y^2+x^2) / (1 - d x^2 y^2).
func (c curve) double(y *big.Int) *big.Int {
	y2, x2 := c.mul(y, y), c.xx(y)
	den := new(big.Int).Sub(big.NewInt(1), c.mul(c.d, c.mul(x2, y2)))
	den.Mod(den, c.p)
	return c.mul(new(big.Int).Add(y2, x2), den.ModInverse(den, c.p))
}

// onCurve: x^2 is a square.
func (c curve) onCurve(y *big.Int) bool { return big.Jacobi(c.xx(y), c.p) >= 0 }

func littleEndian(v *big.Int) []byte {
	p := make([]byte, 32)
	v.FillBytes(p)
	for i, j := 0, 31; i < j; i, j = i+1, j-1 {
		p[i], p[j] = p[j], p[i]
	}
	return p
}

// smallOrderYs computes every y of a point whose order divides 8: those that
// three doublings bring to the neutral point's 1. They are found backwards, as
// roots: 2P has y = 1 for y = 1, -1; y = -1 for y = 0; y = 0 for x^2 = -y^2.
func smallOrderYs(c curve) []*big.Int {
	one := big.NewInt(1)
	list := []*big.Int{big.NewInt(0), one, new(big.Int).Sub(c.p, one)}
	// x^2 = -y^2 on the curve: d y^4 + 2 y^2 - 1 = 0.
	root := new(big.Int).ModSqrt(new(big.Int).Add(c.d, one), c.p)
	inverse := new(big.Int).ModInverse(c.d, c.p)
	for _, r := range []*big.Int{root, new(big.Int).Neg(root)} {
		y2 := c.mul(new(big.Int).Sub(r, one), inverse)
		y := new(big.Int).ModSqrt(y2, c.p)
		if y == nil || !c.onCurve(y) {
			continue
		}
		list = append(list, y, new(big.Int).Sub(c.p, y))
	}
	return list
}

// TestWeakKeys computes the points of small order anew, and wants each refused,
// with both signs, as well as every y that is not reduced.
func TestWeakKeys(t *testing.T) {
	c := newCurve()
	ys := smallOrderYs(c)
	// Eight points have an order that divides 8: y = 1 and -1 one each, the other
	// three y's two each. There can be no more: the curve's group is cyclic there.
	if len(ys) != 5 {
		t.Fatalf("%d y's of small order", len(ys))
	}
	for _, y := range ys {
		q := y
		for range 3 {
			q = c.double(q)
		}
		if q.Cmp(big.NewInt(1)) != 0 {
			t.Fatalf("y = %x is not of small order: the test is wrong", y)
		}
		for sign := range 2 {
			p := littleEndian(y)
			p[31] |= byte(sign << 7)
			if err := manifest.CheckKey(p); err != manifest.ErrKeyOrder {
				t.Errorf("%x: %v", p, err)
			}
		}
	}
	for i := range int64(19) {
		y := new(big.Int).Add(c.p, big.NewInt(i))
		for sign := range 2 {
			p := littleEndian(y)
			p[31] |= byte(sign << 7)
			if err := manifest.CheckKey(p); err != manifest.ErrKeyForm {
				t.Errorf("2^255-19+%d: %v", i, err)
			}
		}
	}
	below := littleEndian(new(big.Int).Sub(c.p, big.NewInt(2)))
	if err := manifest.CheckKey(below); err != 0 {
		t.Errorf("2^255-21: %v", err)
	}
	for i := range 50 {
		if err := manifest.CheckKey(public(fmt.Sprint(i))); err != 0 {
			t.Errorf("an ordinary key: %v", err)
		}
	}
	// Why they must not be in a list: for the neutral point crypto/ed25519 takes a
	// signature that nobody with a secret has made.
	neutral := littleEndian(big.NewInt(1))
	forged := append(bytes.Clone(neutral), make([]byte, 32)...)
	if !ed25519.Verify(neutral, []byte("anything"), forged) {
		t.Error("the forgery does not work: then the check is not needed")
	}
}

func TestKeyFiles(t *testing.T) {
	defer func(n int) { scryptWork = n }(scryptWork)
	scryptWork = 4
	dir := t.TempDir()
	key := testKey("file")
	ask := func(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s), nil } }
	never := func() ([]byte, error) { t.Error("asked for a passphrase"); return nil, nil }

	plain, sealedFile := filepath.Join(dir, "plain.key"), filepath.Join(dir, "sealed.key")
	if err := WriteKey(plain, key, nil); err != nil {
		t.Fatal(err)
	}
	if err := WriteKey(sealedFile, key, []byte("correct horse")); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadKey(plain, never); err != nil || !got.Equal(key) {
		t.Errorf("%v", err)
	}
	if got, err := ReadKey(sealedFile, ask("correct horse")); err != nil || !got.Equal(key) {
		t.Errorf("%v", err)
	}
	if _, err := ReadKey(sealedFile, ask("wrong")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := ReadKey(sealedFile, ask("")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("empty passphrase: %v", err)
	}
	if err := WriteKey(plain, key, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("an existing key was written over: %v", err)
	}
	for _, p := range []string{plain, sealedFile} {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if st, _ := os.Stat(p); runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", p, st.Mode())
		}
		if bytes.Contains(text, key.Seed()) {
			t.Errorf("%s holds the seed", p)
		}
	}
	if runtime.GOOS != "windows" {
		for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
			if err := os.Chmod(plain, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadKey(plain, never); !errors.Is(err, ErrOpenKey) {
				t.Errorf("mode %v: %v", mode, err)
			}
		}
	}
}

func TestKeyFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	// An X25519 key and an RSA public key of others, and text.
	for name, text := range map[string]string{
		"empty":       "",
		"text":        "not a key\n",
		"public":      mustPEM(t, public("x")),
		"cut":         "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIE\n-----END PRIVATE KEY-----\n",
		"x25519":      "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIHcHbQpzGKV9PBbBclGyZkXfTC+H68CZKrF3+6UduSwq\n-----END PRIVATE KEY-----\n",
		"age, broken": "-----BEGIN AGE ENCRYPTED FILE-----\nAAAA\n-----END AGE ENCRYPTED FILE-----\n",
	} {
		p := filepath.Join(dir, "k")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadKey(p, func() ([]byte, error) { return []byte("x"), nil })
		if err == nil {
			t.Errorf("%s: taken for a key", name)
		} else if strings.Contains(err.Error(), "MC4C") || strings.Contains(err.Error(), "HcHb") {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
		if name == "public" {
			continue
		}
		if _, err := ReadPublic(p); err == nil {
			t.Errorf("%s: taken for a public key", name)
		}
	}
	p := filepath.Join(dir, "many.pub")
	if err := WritePublic(p, publics("a", "b")...); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadPublic(p); err != nil || len(keys) != 2 || !keys[1].Equal(public("b")) {
		t.Errorf("%v %v", keys, err)
	}
	weak := littleEndian(big.NewInt(1))
	if err := os.WriteFile(filepath.Join(dir, "weak.pub"), []byte(mustPEM(t, weak)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPublic(filepath.Join(dir, "weak.pub")); !errors.Is(err, manifest.ErrKeyOrder) {
		t.Errorf("a key of small order: %v", err)
	}
}

func mustPEM(t *testing.T, k ed25519.PublicKey) string {
	t.Helper()
	p, err := PublicPEM(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

func TestCommandSigner(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are of a Unix shell")
	}
	// Ed25519 signs the same message always the same: the answers can be made before.
	payload := []byte("payload")
	sig := ed25519.Sign(testKey("cmd"), sigStructure(manifest.KindManifest, payload, public("cmd")))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sig"), sig, 0o600); err != nil {
		t.Fatal(err)
	}
	got := filepath.Join(dir, "message")
	cases := []struct{ name, command, want string }{
		{"raw", "cat >'" + got + "'; cat '" + dir + "/sig'", ""},
		{"hex", "echo " + hex.EncodeToString(sig), ""},
		{"hex in capitals", "echo " + strings.ToUpper(hex.EncodeToString(sig)), ""},
		{"another key's", "echo " + hex.EncodeToString(ed25519.Sign(testKey("other"), payload)), "not one by key"},
		{"too short", "echo 00", "wrote 3 bytes"},
		{"too long", "head -c 100000 /dev/zero", "wrote 1024 bytes"},
		{"no hex", "head -c 128 /dev/zero", "wrote 128 bytes"},
		{"nothing", "true", "wrote 0 bytes"},
		{"a failure", "exit 3", "exit status 3"},
	}
	for _, c := range cases {
		env, err := Sign(context.Background(), manifest.KindManifest, payload, NewCommandSigner(c.command, public("cmd"), io.Discard))
		if c.want != "" {
			if !hasText(err, c.want) {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
			continue
		}
		if err != nil || !bytes.Contains(env, sig) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if m, err := os.ReadFile(got); err != nil || !bytes.Equal(m, sigStructure(manifest.KindManifest, payload, public("cmd"))) {
		t.Errorf("the command got % x, %v", m, err)
	}
}
