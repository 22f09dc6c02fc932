package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/inspect"
	"github.com/runnel-fota/runnel/release"
)

// listChange is a change of the key list in a folder: the next list, signed by
// roots. With enough signatures it takes the place of the list, else it waits in
// keylist.next.cose for `keys sign`.
type listChange struct {
	passphrases
	rootKeys []string
	yes      bool
	dir      string
	held     *release.Trust
	next     *release.KeyList
}

func (c *listChange) flags(cmd *cobra.Command) {
	c.passphrases.flags(cmd)
	cmd.Flags().StringArrayVar(&c.rootKeys, "root-key", nil, "`file` of a root key that signs; may be repeated (default: those in DIR, as many as are needed)")
	cmd.Flags().BoolVar(&c.yes, "yes", false, "don't ask")
}

// begin reads the list; next is a copy with the next version.
func (c *listChange) begin(dir string) (err error) {
	c.dir = dir
	if _, err := os.Lstat(filepath.Join(dir, nextFile)); err == nil {
		return hinted(fmt.Errorf("%s waits for signatures", filepath.Join(dir, nextFile)), "finish it with 'runnel keys sign', or remove it")
	}
	if c.held, err = readList(filepath.Join(dir, listFile)); err != nil {
		return err
	}
	c.next = c.held.List.Clone()
	c.next.Version++
	return nil
}

// rootSigners finds m root keys in the folder, those that are also in first
// before others, or opens those that were named.
func (c *listChange) rootSigners(cmd *cobra.Command, prefer func(ed25519.PublicKey) bool) ([]release.Signer, error) {
	var list []release.Signer
	paths := c.rootKeys
	if len(paths) == 0 {
		var err error
		if paths, err = c.findRoots(prefer); err != nil {
			return nil, err
		}
	}
	for _, p := range paths {
		key, err := c.openKey(cmd, p)
		if err != nil {
			return nil, err
		}
		s := release.NewKeySigner(key)
		if !c.held.List.IsRoot(s.Public()) {
			return nil, fmt.Errorf("%s is none of the list's roots", p)
		}
		list = append(list, s)
	}
	return list, nil
}

// findRoots looks at the public files, so that no more secrets are opened than
// are needed.
func (c *listChange) findRoots(prefer func(ed25519.PublicKey) bool) ([]string, error) {
	pubs, err := filepath.Glob(filepath.Join(c.dir, "root*.pub"))
	if err != nil {
		return nil, err
	}
	var first, then []string
	for _, p := range pubs {
		public, err := onePublic(p)
		key := strings.TrimSuffix(p, ".pub") + ".key"
		if _, e := os.Stat(key); err != nil || e != nil || !c.held.List.IsRoot(public) {
			continue
		}
		if prefer != nil && prefer(public) {
			first = append(first, key)
		} else {
			then = append(then, key)
		}
	}
	all := append(first, then...)
	if len(all) == 0 {
		return nil, hinted(fmt.Errorf("no root key is in %s", c.dir), "name them with --root-key")
	}
	return all[:min(len(all), c.held.M)], nil
}

// sign signs the next list and puts it where it belongs.
func (c *listChange) sign(cmd *cobra.Command, what string, signers []release.Signer) error {
	p, err := c.next.Encode()
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s\nkey list version %d, generation %d\n", what, c.next.Version, c.next.Generation)
	if err := confirmed(cmd, c.yes, "sign this list?"); err != nil {
		return err
	}
	env, err := release.Sign(cmd.Context(), manifest.KindKeys, p, signers...)
	if err != nil {
		return err
	}
	return c.place(cmd, env)
}

// place makes env the list, if what is held leads to it.
func (c *listChange) place(cmd *cobra.Command, env []byte) error {
	t, err := c.held.Accept(env)
	if errors.Is(err, manifest.ErrOldQuorum) || errors.Is(err, manifest.ErrNewQuorum) {
		if err := writeList(c.dir, nextFile, env); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "not in force yet: %v\nanother root signs it with: runnel keys sign %s --key ROOT.key\n", err, c.dir)
		return nil
	}
	if err != nil {
		return err
	}
	if t.Generation != c.held.Generation {
		// Devices go from one generation to the next: the list that begins one stays.
		if err := writeList(c.dir, fmt.Sprintf("keylist-g%d.cose", t.Generation), env); err != nil {
			return err
		}
	}
	if err := writeList(c.dir, listFile, env); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(c.dir, nextFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "in force: %s\n", filepath.Join(c.dir, listFile))
	return nil
}

func newKeysAddCmd() *cobra.Command {
	c := &listChange{}
	var public string
	var roles, products []string
	var open bool
	cmd := &cobra.Command{
		Use:   "add DIR NAME",
		Short: "Add a key that may sign: a new one, or somebody's public key",
		Long: `Makes NAME.key and NAME.pub in DIR and adds the key to the list, signed by the
roots. With --pub it adds a key that somebody else made and keeps.`,
		Example: `  runnel keys add keys release-2 --role release --product acme/pump
  runnel keys add keys anna --pub anna.pub
  runnel keys add keys online --role stream`,
		Args: exactArgs("DIR", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.ContainsAny(args[1], `/\`) || strings.HasPrefix(args[1], ".") || strings.HasPrefix(args[1], "root") {
				return usagef("%q is no name for a key", args[1]).withHint("it becomes NAME.key; names with root are for roots")
			}
			k := release.Key{Products: products}
			for _, r := range roles {
				switch r {
				case "release":
					k.Roles |= manifest.RoleRelease
				case "stream":
					k.Roles |= manifest.RoleStream
				default:
					return usagef("--role %s: it is release or stream", r)
				}
			}
			if err := c.begin(args[0]); err != nil {
				return err
			}
			for _, p := range products {
				if c.next.Product(p) == nil {
					return hinted(fmt.Errorf("the key list does not name the product %s", p), "add it first: runnel keys product %s %s", args[0], p)
				}
			}
			signers, err := c.rootSigners(cmd, nil)
			if err != nil {
				return err
			}
			if k.Public, err = c.newKey(cmd, args[1], public, open); err != nil {
				return err
			}
			if c.next.Key(k.Public) != nil || c.next.IsRoot(k.Public) {
				return fmt.Errorf("key %s is in the list already", release.KeyName(k.Public))
			}
			c.next.Keys = append(c.next.Keys, k)
			return c.sign(cmd, fmt.Sprintf("adds key %s (%s)", release.KeyName(k.Public), strings.Join(inspect.RoleNames(k.Roles), ", ")), signers)
		},
	}
	cmd.Flags().StringVar(&public, "pub", "", "`file` with a public key that exists")
	cmd.Flags().StringSliceVar(&roles, "role", []string{"release"}, "what it may sign: `release` (manifests and sheets), stream (sheets), or both")
	cmd.Flags().StringArrayVar(&products, "product", nil, "a `product` that it may sign for; may be repeated (default: all)")
	cmd.Flags().BoolVar(&open, "no-passphrase", false, "leave the new key file unencrypted")
	c.flags(cmd)
	return cmd
}

func (c *listChange) newKey(cmd *cobra.Command, name, public string, open bool) (ed25519.PublicKey, error) {
	if public != "" {
		return onePublic(public)
	}
	var secret []byte
	if !open {
		var err error
		if secret, err = c.get(cmd, true); err != nil {
			return nil, err
		}
	}
	key, err := makeKey(c.dir, name, secret)
	if err != nil {
		return nil, err
	}
	return key.Public().(ed25519.PublicKey), nil
}

func newKeysProductCmd() *cobra.Command {
	c := &listChange{}
	var threshold int
	var epoch, floor uint32
	var remove bool
	cmd := &cobra.Command{
		Use:   "product DIR PRODUCT",
		Short: "Name a product in the key list, or change what it asks for",
		Long: `Sets what the key list says about a product; what is not given stays as it is.

A higher epoch ends a sequence that was signed too high. A higher floor takes
releases with a lower security version out of use.`,
		Example: `  runnel keys product keys acme/valve
  runnel keys product keys acme/pump --threshold 2
  runnel keys product keys acme/pump --floor 3`,
		Args: exactArgs("DIR", "PRODUCT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fleet.ValidateProduct(args[1]); err != nil {
				return usagef("%v", err)
			}
			if err := c.begin(args[0]); err != nil {
				return err
			}
			p := c.next.Product(args[1])
			if remove {
				if p == nil {
					return fmt.Errorf("the key list does not name %s", args[1])
				}
				c.next.Products = slices.DeleteFunc(c.next.Products, func(q release.Product) bool { return q.Name == args[1] })
			} else {
				if p == nil {
					c.next.Products = append(c.next.Products, release.Product{Name: args[1], Threshold: 1})
					p = c.next.Product(args[1])
				}
				if err := setProduct(cmd, p, threshold, epoch, floor); err != nil {
					return err
				}
				warnThreshold(cmd, c.next, p)
			}
			signers, err := c.rootSigners(cmd, nil)
			if err != nil {
				return err
			}
			what := "removes product " + args[1]
			if !remove {
				what = fmt.Sprintf("product %s: threshold %d, epoch %d, floor %d", p.Name, p.Threshold, p.Epoch, p.Floor)
			}
			return c.sign(cmd, what, signers)
		},
	}
	cmd.Flags().IntVar(&threshold, "threshold", 1, "`number` of distinct release keys that must sign a release, 1 to 4")
	cmd.Flags().Uint32Var(&epoch, "epoch", 0, "`number` that is compared before the sequence; it only rises")
	cmd.Flags().Uint32Var(&floor, "floor", 0, "lowest security version, a `number` that only rises")
	cmd.Flags().BoolVar(&remove, "remove", false, "take the product out: it has no releases then")
	c.flags(cmd)
	return cmd
}

func setProduct(cmd *cobra.Command, p *release.Product, threshold int, epoch, floor uint32) error {
	f := cmd.Flags()
	switch {
	case threshold < 1 || threshold > manifest.MaxSignatures:
		return usagef("--threshold %d: it is 1 to %d", threshold, manifest.MaxSignatures)
	case f.Changed("epoch") && epoch < p.Epoch:
		return usagef("--epoch %d: it only rises, and is %d", epoch, p.Epoch)
	case f.Changed("floor") && floor < p.Floor:
		return usagef("--floor %d: it only rises, and is %d", floor, p.Floor)
	}
	if f.Changed("threshold") {
		p.Threshold = threshold
	}
	if f.Changed("epoch") {
		p.Epoch = epoch
	}
	if f.Changed("floor") {
		p.Floor = floor
	}
	return nil
}

func warnThreshold(cmd *cobra.Command, l *release.KeyList, p *release.Product) {
	n := 0
	for i := range l.Keys {
		if k := &l.Keys[i]; k.Roles&manifest.RoleRelease != 0 && k.SignsFor(p.Name) {
			n++
		}
	}
	if n < p.Threshold {
		warn(cmd, fmt.Sprintf("%d must sign releases of %s, and the list has only %d that may: nothing can be released", p.Threshold, p.Name, n))
	}
}

func newKeysRevokeCmd() *cobra.Command {
	c := &listChange{}
	cmd := &cobra.Command{
		Use:   "revoke DIR KEY",
		Short: "Take a key out of the list: what it signed no longer counts",
		Long: `KEY is a key's id (16 hex digits, see 'runnel keys list') or its public file. A
device that has seen the new list takes nothing that the key signed; one that was
offline still does. Roots are exchanged by 'runnel keys rotate'.`,
		Example: "  runnel keys revoke keys 1f2e3d4c5b6a7988\n  runnel keys revoke keys keys/release.pub",
		Args:    exactArgs("DIR", "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.begin(args[0]); err != nil {
				return err
			}
			public, err := c.find(args[1])
			if err != nil {
				return err
			}
			signers, err := c.rootSigners(cmd, nil)
			if err != nil {
				return err
			}
			c.next.Keys = slices.DeleteFunc(c.next.Keys, func(k release.Key) bool { return k.Public.Equal(public) })
			for i := range c.next.Products {
				warnThreshold(cmd, c.next, &c.next.Products[i])
			}
			return c.sign(cmd, "revokes key "+release.KeyName(public), signers)
		},
	}
	c.flags(cmd)
	return cmd
}

func (c *listChange) find(arg string) (ed25519.PublicKey, error) {
	var public ed25519.PublicKey
	if id, err := hex.DecodeString(arg); err == nil && len(id) == manifest.KeyIDSize {
		for _, k := range c.held.List.Keys {
			if release.KeyName(k.Public) == strings.ToLower(arg) {
				public = k.Public
			}
		}
		for _, r := range c.held.List.Roots {
			if release.KeyName(r) == strings.ToLower(arg) {
				public = r
			}
		}
	} else if public, err = onePublic(arg); err != nil {
		return nil, err
	}
	switch {
	case public != nil && c.held.List.IsRoot(public):
		return nil, hinted(errors.New("that is a root"), "exchange it: runnel keys rotate")
	case public == nil || c.held.List.Key(public) == nil:
		return nil, hinted(fmt.Errorf("no key %s is in the list", arg), "see 'runnel keys list %s'", c.dir)
	}
	return public, nil
}

func newKeysSignCmd() *cobra.Command {
	c := &listChange{}
	s := &signerFlags{}
	cmd := &cobra.Command{
		Use:   "sign DIR",
		Short: "Add a root's signature to a key list that waits for it",
		Long: `Where the roots are with different people, a change of the list is signed by one
after the other: the list waits as keylist.next.cose, and is in force once enough
of them have signed.`,
		Example: "  runnel keys sign keys --key /media/stick/root-2.key",
		Args:    exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c.dir = args[0]
			if c.held, err = readList(filepath.Join(c.dir, listFile)); err != nil {
				return err
			}
			env, err := readBounded(filepath.Join(c.dir, nextFile), release.MaxEnvelope)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("no key list waits for signatures in %s", c.dir)
			}
			if err != nil {
				return err
			}
			e, err := release.ParseEnvelope(env)
			if err != nil {
				return err
			}
			if c.next, err = release.DecodeKeyList(e.Payload); err != nil {
				return err
			}
			if err := viewList(c.next).show(cmd.OutOrStdout()); err != nil {
				return err
			}
			signer, err := s.signer(cmd)
			if err != nil {
				return err
			}
			if !c.held.List.IsRoot(signer.Public()) && !c.next.IsRoot(signer.Public()) {
				return fmt.Errorf("key %s is no root, of neither list", release.KeyName(signer.Public()))
			}
			if err := confirmed(cmd, c.yes, "sign this list?"); err != nil {
				return err
			}
			if env, err = release.AddSignature(cmd.Context(), manifest.KindKeys, env, signer); err != nil {
				return err
			}
			return c.place(cmd, env)
		},
	}
	s.flags(cmd, "a root key")
	cmd.Flags().BoolVar(&c.yes, "yes", false, "don't ask")
	return cmd
}
