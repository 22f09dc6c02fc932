package release

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/runnel-fota/runnel/core/manifest"
)

// Key files: PKCS#8 in PEM, mode 0600, as such or encrypted with a passphrase by
// age; public keys in PEM (SubjectPublicKeyInfo). Nothing of it is home-made:
// openssl and age read them.

const (
	pemPrivate = "PRIVATE KEY"
	pemPublic  = "PUBLIC KEY"
	// maxKeyFile bounds what is read of one, in bytes.
	maxKeyFile = 64 << 10
)

// scryptWork is age's work factor, log2: its default costs about a second.
// Tests lower it. maxScryptWork is what a key file may ask of who opens it: 1 GiB.
var scryptWork = 18

const maxScryptWork = 20

// NewKey makes a key from the system's randomness.
func NewKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// WriteKey writes a key to a new file that only its owner reads, encrypted
// unless passphrase is empty. An existing file is never touched.
func WriteKey(path string, key ed25519.PrivateKey, passphrase []byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: der})
	if len(passphrase) > 0 {
		if text, err = seal(text, passphrase); err != nil {
			return err
		}
	}
	return writeNew(path, text, 0o600)
}

func seal(text, passphrase []byte) ([]byte, error) {
	to, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, err
	}
	to.SetWorkFactor(scryptWork)
	var out bytes.Buffer
	lines := armor.NewWriter(&out)
	w, err := age.Encrypt(lines, to)
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = lines.Close()
	}
	return out.Bytes(), err
}

// WritePublic writes public keys to a new PEM file.
func WritePublic(path string, keys ...ed25519.PublicKey) error {
	text, err := PublicPEM(keys...)
	if err != nil {
		return err
	}
	return writeNew(path, text, 0o644)
}

// PublicPEM is public keys as PEM, one block each.
func PublicPEM(keys ...ed25519.PublicKey) ([]byte, error) {
	var out bytes.Buffer
	for _, k := range keys {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return nil, err
		}
		if err := pem.Encode(&out, &pem.Block{Type: pemPublic, Bytes: der}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// writeNew writes a file that did not exist, and makes it durable: a root key
// that is lost is lost for the fleet.
func writeNew(path string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(path)
		return err
	}
	if d, e := os.Open(filepath.Dir(path)); e == nil {
		d.Sync() // not every file system can; the file itself is flushed
		d.Close()
	}
	return nil
}

// Errors of key files that a caller gives a hint for.
var (
	ErrPassphrase = errors.New("wrong passphrase")
	ErrOpenKey    = errors.New("others can read the key")
)

// ReadKey reads a key file. passphrase is asked only where the file is encrypted.
func ReadKey(path string, passphrase func() ([]byte, error)) (ed25519.PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w: its mode is %04o", path, ErrOpenKey, st.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte(armor.Header)) {
		if text, err = open(text, passphrase); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	b, rest := pem.Decode(text)
	if b == nil || b.Type != pemPrivate || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s is no key file: one %s block in PEM, or one that age encrypted, is expected", path, pemPrivate)
	}
	// What x509 says of a key is left out: it may quote it.
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	key, ok := k.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s holds no Ed25519 key in PKCS#8", path)
	}
	return key, nil
}

func open(text []byte, passphrase func() ([]byte, error)) ([]byte, error) {
	if passphrase == nil {
		return nil, ErrPassphrase
	}
	secret, err := passphrase()
	if err != nil {
		return nil, err
	}
	id, err := age.NewScryptIdentity(string(secret))
	if err != nil {
		return nil, ErrPassphrase
	}
	id.SetMaxWorkFactor(maxScryptWork)
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(text)), id)
	if err != nil {
		var no *age.NoIdentityMatchError
		if errors.As(err, &no) {
			return nil, ErrPassphrase
		}
		return nil, fmt.Errorf("age: %w", err)
	}
	return io.ReadAll(io.LimitReader(r, maxKeyFile))
}

// ReadPublic reads a file of one or more public keys in PEM.
func ReadPublic(path string) ([]ed25519.PublicKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	var keys []ed25519.PublicKey
	for {
		b, rest := pem.Decode(text)
		if b == nil {
			break
		}
		text = rest
		if b.Type != pemPublic {
			return nil, fmt.Errorf("%s holds a %s, not public keys only", path, b.Type)
		}
		k, err := x509.ParsePKIXPublicKey(b.Bytes)
		public, ok := k.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("%s holds a public key that is no Ed25519 key", path)
		}
		if err := fault(manifest.CheckKey(public)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, public)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no public key in PEM", path)
	}
	return keys, nil
}

// KeySigner signs with a key in memory.
type KeySigner struct{ key ed25519.PrivateKey }

var _ Signer = (*KeySigner)(nil)

// NewKeySigner signs with key.
func NewKeySigner(key ed25519.PrivateKey) *KeySigner { return &KeySigner{key} }

// Public is the key's public half.
func (s *KeySigner) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Sign is Signer.
func (s *KeySigner) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(s.key, message), nil
}

// CommandSigner asks a program: for keys in hardware or in a signing service.
// The program gets the message on standard input, and writes the signature to
// standard output: 64 bytes, or 128 hex digits.
type CommandSigner struct {
	public ed25519.PublicKey
	shell  string
	stderr io.Writer
}

var _ Signer = (*CommandSigner)(nil)

// NewCommandSigner runs command by the shell for each signature; what it says on
// standard error goes to stderr.
func NewCommandSigner(command string, public ed25519.PublicKey, stderr io.Writer) *CommandSigner {
	return &CommandSigner{public, command, stderr}
}

// Public is the key that the program is said to hold.
func (s *CommandSigner) Public() ed25519.PublicKey { return s.public }

// Sign is Signer.
func (s *CommandSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	name, arg := "sh", "-c"
	if runtime.GOOS == "windows" {
		name, arg = "cmd", "/c"
	}
	cmd := exec.CommandContext(ctx, name, arg, s.shell)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(message), s.stderr
	var out limited
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the signing command: %w", err)
	}
	if len(out.p) == manifest.SignatureSize {
		return out.p, nil
	}
	if text := bytes.TrimSpace(out.p); len(text) == 2*manifest.SignatureSize {
		sig := make([]byte, manifest.SignatureSize)
		if _, err := hex.Decode(sig, text); err == nil {
			return sig, nil
		}
	}
	return nil, fmt.Errorf("the signing command wrote %d bytes: neither a signature's 64 nor 128 hex digits", len(out.p))
}

// limited keeps the first bytes of an output, a few more than a signature has.
type limited struct{ p []byte }

func (l *limited) Write(p []byte) (int, error) {
	l.p = append(l.p, p[:min(len(p), 1024-len(l.p))]...)
	return len(p), nil
}
