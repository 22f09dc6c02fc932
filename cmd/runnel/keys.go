package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/inspect"
	"github.com/runnel-fota/runnel/release"
)

func newKeysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make signing keys, and say which of them count",
		Long: `Root keys sign the key list, which says which release keys count, for which
products. They stay offline; a release key may live on a build machine, away from
the server. What the files hold is in docs/format/keylist.md. Nothing here but
'publish' and 'server' needs a server or a network.`,
		Example: `  runnel keys init keys --product acme/pump
  runnel keys list keys`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysInitCmd(), newKeysListCmd(), newKeysAddCmd(), newKeysProductCmd(), newKeysRevokeCmd(), newKeysRotateCmd(),
		newKeysSignCmd(), newKeysExportCmd(), newKeysPublishCmd(), newKeysServerCmd(), newKeysRehearseCmd())
	return cmd
}

// Files of a key folder.
const (
	listFile = "keylist.cose"
	nextFile = "keylist.next.cose" // waits for signatures
)

// numbered is stem.ext for one of one, stem-1.ext and so on for more.
func numbered(stem string, i, n int) string {
	if n == 1 {
		return stem
	}
	return fmt.Sprintf("%s-%d", stem, i+1)
}

func newKeysInitCmd() *cobra.Command {
	var open bool
	var products []string
	var roots, m int
	var pass passphrases
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Make root keys, a release key and the first key list",
		Long: `Makes in DIR: root.key and root.pub (root-1.key ... with several roots),
release.key and release.pub, and keylist.cose, which the roots sign. Key files are
PKCS#8 in PEM, encrypted with one passphrase by age, mode 0600. Nothing that exists
is written over.

Afterwards take the root keys off this machine, and keep copies: without m of them
no key can ever be added or revoked.`,
		Example: `  runnel keys init keys --product acme/pump
  runnel keys init keys --product acme/pump --roots 3 --m 2`,
		Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("m") {
				m = roots/2 + 1
			}
			if roots < 1 || roots > manifest.MaxRoots || m < 1 || m > min(roots, manifest.MaxSignatures) {
				return usagef("%d roots of which %d sign: there are 1 to %d roots, and 1 to %d of them sign", roots, m, manifest.MaxRoots, manifest.MaxSignatures)
			}
			l := &release.KeyList{Version: 1, Generation: 1, M: m}
			for _, p := range products {
				if err := addProduct(l, p); err != nil {
					return err
				}
			}
			var secret []byte
			if !open {
				var err error
				if secret, err = pass.get(cmd, true); err != nil {
					return err
				}
			}
			return initKeys(cmd, args[0], l, roots, secret)
		},
	}
	cmd.Flags().BoolVar(&open, "no-passphrase", false, "leave the key files unencrypted: who reads them can sign")
	cmd.Flags().StringArrayVar(&products, "product", nil, "a `product` that the keys are for, name or vendor/name; may be repeated")
	cmd.Flags().IntVar(&roots, "roots", 1, "`number` of root keys")
	cmd.Flags().IntVar(&m, "m", 1, "`number` of roots that must sign a key list (default: more than half)")
	pass.flags(cmd)
	return cmd
}

func addProduct(l *release.KeyList, name string) error {
	if err := fleet.ValidateProduct(name); err != nil {
		return usagef("%v", err)
	}
	if l.Product(name) != nil {
		return usagef("product %s is there twice", name)
	}
	l.Products = append(l.Products, release.Product{Name: name, Threshold: 1})
	return nil
}

func initKeys(cmd *cobra.Command, dir string, l *release.KeyList, roots int, secret []byte) error {
	var stems []string
	for i := range roots {
		stems = append(stems, numbered("root", i, roots))
	}
	stems = append(stems, "release")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Everything is looked at before anything is made: half a set of keys would
	// look like a whole one.
	taken := []string{listFile}
	for _, s := range stems {
		taken = append(taken, s+".key", s+".pub")
	}
	for _, name := range taken {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return hinted(fmt.Errorf("%s exists", filepath.Join(dir, name)), "keys are never written over: choose another folder")
		}
	}
	var signers []release.Signer
	for i, s := range stems {
		key, err := makeKey(dir, s, secret)
		if err != nil {
			return err
		}
		public := key.Public().(ed25519.PublicKey)
		if i < roots {
			l.Roots = append(l.Roots, public)
			signers = append(signers, release.NewKeySigner(key))
		} else {
			l.Keys = []release.Key{{Public: public, Roles: manifest.RoleRelease}}
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", release.KeyName(public), filepath.Join(dir, s+".key"))
	}
	p, err := l.Encode()
	if err != nil {
		return err
	}
	env, err := release.Sign(cmd.Context(), manifest.KindKeys, p, signers[:l.M]...)
	if err != nil {
		return err
	}
	if err := writeList(dir, listFile, env); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "key list version 1, generation 1: %d of %d roots sign it\n", l.M, roots)
	if len(l.Products) == 0 {
		warn(cmd, "the key list names no product, so nothing can be signed yet: runnel keys product "+dir+" VENDOR/NAME")
	}
	return nil
}

func makeKey(dir, stem string, secret []byte) (ed25519.PrivateKey, error) {
	key, err := release.NewKey()
	if err == nil {
		err = release.WriteKey(filepath.Join(dir, stem+".key"), key, secret)
	}
	if err == nil {
		err = release.WritePublic(filepath.Join(dir, stem+".pub"), key.Public().(ed25519.PublicKey))
	}
	return key, err
}

func writeList(dir, name string, env []byte) error {
	return replaceFile(filepath.Join(dir, name), 0o644, func(f *os.File) error {
		_, err := f.Write(env)
		return err
	})
}

// readList reads a key list and holds it against its own roots: it is whole and
// signed. Whether those roots are to be trusted is another question.
func readList(path string) (*release.Trust, error) {
	env, err := readBounded(path, release.MaxEnvelope)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = hinted(err, "'runnel keys init' makes one")
		}
		return nil, err
	}
	t, err := ownTrust(env)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func ownTrust(env []byte) (*release.Trust, error) {
	e, err := release.ParseEnvelope(env)
	if err != nil {
		return nil, err
	}
	l, err := release.DecodeKeyList(e.Payload)
	if err != nil {
		return nil, err
	}
	t, err := release.TrustRoots(l.Generation, l.M, l.Roots...)
	if err != nil {
		return nil, err
	}
	return t.Accept(env)
}

// listPath is the key list that a folder or a file name stands for.
func listPath(arg string) string {
	if st, err := os.Stat(arg); err == nil && st.IsDir() {
		return filepath.Join(arg, listFile)
	}
	return arg
}

func newKeysListCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list DIR|FILE",
		Short: "Show a key list: roots, keys and products",
		Long: `Shows keylist.cose of a folder, or the list in a file, once it is signed by enough of
its own roots. Whether those are to be trusted is another question.

--json prints version, generation, m, roots, keys, products and sha256.`,
		Example: "  runnel keys list keys\n  runnel keys list keys/keylist.cose --json",
		Args:    exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := readList(listPath(args[0]))
			if err != nil {
				return err
			}
			v := viewList(t.List)
			v.SHA256 = fmt.Sprintf("%x", sha256.Sum256(t.Envelope))
			if asJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			return v.show(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// listView is a key list for people and scripts.
type listView struct {
	*inspect.KeyList
	SHA256 string `json:"sha256,omitempty"` // of the envelope
}

func viewList(l *release.KeyList) *listView { return &listView{KeyList: inspect.ViewKeyList(l)} }

func (v *listView) show(w io.Writer) error {
	fmt.Fprintf(w, "key list version %d, generation %d: %d of %d roots sign it\n\n", v.Version, v.Generation, v.M, len(v.Roots))
	rows := [][]string{{"KEY", "ROLE", "PRODUCTS"}}
	for _, r := range v.Roots {
		rows = append(rows, []string{r.KID, "root", ""})
	}
	for _, k := range v.Keys {
		products := "all"
		if len(k.Products) > 0 {
			products = strings.Join(k.Products, ", ")
		}
		rows = append(rows, []string{k.KID, strings.Join(k.Roles, ", "), products})
	}
	if err := table(w, rows); err != nil || len(v.Products) == 0 {
		return err
	}
	fmt.Fprintln(w)
	rows = [][]string{{"PRODUCT", "THRESHOLD", "EPOCH", "FLOOR"}}
	for _, p := range v.Products {
		rows = append(rows, []string{p.Name, fmt.Sprint(p.Threshold), fmt.Sprint(p.Epoch), fmt.Sprint(p.Floor)})
	}
	return table(w, rows)
}
