package client

import "context"

// Policy is what a product takes and asks.
type Policy struct {
	Product    string `json:"product"`
	SignedOnly bool   `json:"signed_only"`
	AllowV1    bool   `json:"allow_v1"`
	ByOperator bool   `json:"by_operator"`
	// RolloutsOnly: its releases are for nobody but by rollouts, the first one included.
	RolloutsOnly   bool     `json:"rollouts_only,omitempty"`
	Signers        []string `json:"signers,omitempty"` // none: all that the key list names
	LeastAssurance string   `json:"least_assurance"`
	LeastWire      string   `json:"least_wire"`
	Confirm        string   `json:"confirm"`
	ChunkSizes     []int    `json:"chunk_sizes,omitempty"` // bytes, the default first; none: any
	Hardware       []string `json:"hardware,omitempty"`    // none: any
}

// PolicyChange is what is said of a product; nil leaves what is.
type PolicyChange struct {
	Product        string    `json:"product"`
	SignedOnly     *bool     `json:"signed_only,omitempty"`
	AllowV1        *bool     `json:"allow_v1,omitempty"`
	RolloutsOnly   *bool     `json:"rollouts_only,omitempty"`
	Signers        *[]string `json:"signers,omitempty"`
	LeastAssurance *string   `json:"least_assurance,omitempty"`
	LeastWire      *string   `json:"least_wire,omitempty"`
	Confirm        *string   `json:"confirm,omitempty"`
	ChunkSizes     *[]int    `json:"chunk_sizes,omitempty"`
	Hardware       *[]string `json:"hardware,omitempty"`
}

// Policies lists products that something is said of.
func (c *Client) Policies(ctx context.Context) ([]Policy, error) {
	var out struct {
		Policies []Policy `json:"policies"`
	}
	err := c.get(ctx, "/policies", nil, &out)
	return out.Policies, err
}

// SetPolicy says what a product takes and asks.
func (c *Client) SetPolicy(ctx context.Context, p PolicyChange) (Policy, error) {
	var out Policy
	err := c.call(ctx, "POST", "/policies", p, &out)
	return out, err
}
