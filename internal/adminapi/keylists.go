package adminapi

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// KeyList is a key list as the API shows it.
type KeyList struct {
	Version    uint32    `json:"version"`
	Generation uint32    `json:"generation"`
	SHA256     string    `json:"sha256" doc:"of the envelope"`
	AddedAt    time.Time `json:"added_at"`
}

func keyListOf(l fleet.KeyList) KeyList {
	return KeyList{Version: l.Version, Generation: l.Generation, SHA256: l.Digest.String(), AddedAt: l.AddedAt.UTC()}
}

// KeyListTaker decides about key lists.
type KeyListTaker interface {
	// AddKeyList takes the first list as it is, and every other if it follows the newest.
	AddKeyList(ctx context.Context, envelope []byte) (l fleet.KeyList, created bool, err error)
}

// Policy is what a product takes.
type Policy struct {
	Product    string `json:"product"`
	SignedOnly bool   `json:"signed_only" doc:"unsigned images are refused on every way in"`
	AllowV1    bool   `json:"allow_v1" doc:"devices get its releases over v1, which has no signatures"`
	ByOperator bool   `json:"by_operator" doc:"false: a key list or a signed release made it signed"`
	Rollouts   bool   `json:"rollouts_only,omitempty" doc:"its releases are for nobody but by rollouts, the first one included"`
}

type keyListInput struct{ body io.Reader }

// Resolve keeps the body for the handler: an envelope is no JSON.
func (in *keyListInput) Resolve(ctx huma.Context) []error {
	r, _ := humago.Unwrap(ctx)
	in.body = r.Body
	return nil
}

// keyLists: who may sign, and what products take.
func (s *server) keyLists() {
	add := op("publish-keylist", "POST", "/keylists", "Publish a key list: its envelope is the body. The first one is taken as it is", status(201), func(o *huma.Operation) {
		o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/cose": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}
		o.Errors = append(o.Errors, 409, 413)
	})
	type addKeyListOutput struct {
		Status int
		Body   struct {
			KeyList KeyList `json:"keylist"`
			Created bool    `json:"created" doc:"false: it is the newest already"`
		}
	}
	huma.Register(s.api, add, func(ctx context.Context, in *keyListInput) (*addKeyListOutput, error) {
		envelope, err := io.ReadAll(&bounded{in.body, maxBody})
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		l, created, err := s.Taker.AddKeyList(ctx, envelope)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &addKeyListOutput{Status: 201}
		if !created {
			o.Status = 200
		}
		o.Body.KeyList, o.Body.Created = keyListOf(l), created
		return o, nil
	})
	type keyListsOutput struct {
		Body struct {
			KeyLists []KeyList `json:"keylists"`
		}
	}
	huma.Register(s.api, op("list-keylists", "GET", "/keylists", "All key lists, newest first"), func(ctx context.Context, _ *empty) (*keyListsOutput, error) {
		list, err := s.KeyLists.ListKeyLists(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &keyListsOutput{}
		o.Body.KeyLists = make([]KeyList, 0, len(list))
		for _, l := range list {
			o.Body.KeyLists = append(o.Body.KeyLists, keyListOf(l))
		}
		return o, nil
	})
	s.policies()
}

// byRollout is the products that are moved by rollouts alone.
func (s *server) byRollout(ctx context.Context) ([]string, error) {
	if s.RolloutPolicies == nil {
		return nil, nil
	}
	return s.RolloutPolicies.ByRollout(ctx)
}

func (s *server) policies() {
	type policiesOutput struct {
		Body struct {
			Policies []Policy `json:"policies"`
		}
	}
	huma.Register(s.api, op("list-policies", "GET", "/policies", "What products take; those that are not named take unsigned images"), func(ctx context.Context, _ *empty) (*policiesOutput, error) {
		list, err := s.Policies.ListPolicies(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		without, err := s.V1Policies.WithoutV1(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		only, err := s.byRollout(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &policiesOutput{}
		o.Body.Policies = make([]Policy, 0, len(list))
		for _, p := range list {
			o.Body.Policies = append(o.Body.Policies, Policy{Product: p.Name, SignedOnly: p.SignedOnly, AllowV1: !without[p.Name], ByOperator: p.ByOperator, Rollouts: slices.Contains(only, p.Name)})
		}
		return o, nil
	})
	type policyInput struct {
		Body struct {
			Product    string `json:"product" maxLength:"64"`
			SignedOnly *bool  `json:"signed_only,omitempty"`
			AllowV1    *bool  `json:"allow_v1,omitempty"`
			Rollouts   *bool  `json:"rollouts_only,omitempty"`
		}
	}
	type policyOutput struct{ Body Policy }
	huma.Register(s.api, op("set-policy", "POST", "/policies", "Say what a product takes"), func(ctx context.Context, in *policyInput) (*policyOutput, error) {
		b := in.Body
		err := fleet.ValidateProduct(b.Product)
		if err == nil && b.SignedOnly == nil && b.AllowV1 == nil && b.Rollouts == nil {
			err = fleet.Errorf(fleet.CodeInvalid, "neither signed_only, allow_v1 nor rollouts_only is said")
		}
		if err == nil && b.SignedOnly != nil {
			err = s.Policies.SetPolicy(ctx, b.Product, *b.SignedOnly, s.Now())
		}
		if err == nil && b.AllowV1 != nil {
			err = s.V1Policies.AllowV1(ctx, b.Product, *b.AllowV1, s.Now())
		}
		if err == nil && b.Rollouts != nil {
			err = s.RolloutPolicies.OnlyByRollout(ctx, b.Product, *b.Rollouts, s.Now())
		}
		var only []string
		if err == nil {
			only, err = s.byRollout(ctx)
		}
		var p fleet.ProductPolicy
		var without map[string]bool
		if err == nil {
			p, err = s.Policies.Policy(ctx, b.Product)
		}
		if err == nil {
			without, err = s.V1Policies.WithoutV1(ctx)
		}
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &policyOutput{Policy{Product: p.Name, SignedOnly: p.SignedOnly, AllowV1: !without[p.Name], ByOperator: p.ByOperator, Rollouts: slices.Contains(only, b.Product)}}, nil
	})
}
