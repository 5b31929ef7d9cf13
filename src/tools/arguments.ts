/** The arguments of each tool once they are normal: bounded, trimmed, defaults filled in. */
export const PRODUCT_CONDITIONS = ["new", "used", "refurbished", "open_box"] as const;
export const PRODUCT_SHIPPING = ["free", "fast"] as const;

export interface WebSearchArgs {
  readonly query: string;
  readonly limit: number;
}

export interface ProductSearchArgs {
  readonly query: string;
  readonly limit: number;
  readonly categoryId: string | null;
  readonly categoryName: string | null;
  readonly minPrice: number | null;
  readonly maxPrice: number | null;
  readonly condition: (typeof PRODUCT_CONDITIONS)[number] | null;
  readonly shipping: (typeof PRODUCT_SHIPPING)[number] | null;
  /** Least share of positive feedback a seller must have, in percent. */
  readonly sellerRating: number;
  /** Two-letter country of the item. */
  readonly location: string | null;
  /** eBay's id of a site, such as EBAY_US; null is the deployment's own. */
  readonly marketplaceId: string | null;
}

export interface GlobalSearchArgs {
  readonly query: string;
  readonly limit: number;
  /** Two-letter country whose shops are searched. */
  readonly country: string | null;
  readonly minPrice: number | null;
  readonly maxPrice: number | null;
}

export interface CurrentTimeArgs {
  /** IANA name; the default is where the product's users are. */
  readonly timeZone: string;
}

export interface ToolArgs {
  readonly search_web: WebSearchArgs;
  readonly search_products: ProductSearchArgs;
  readonly search_global: GlobalSearchArgs;
  readonly get_current_time: CurrentTimeArgs;
}
