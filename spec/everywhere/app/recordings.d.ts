/** Layer cases of spec/recordings as base64, by name; written beside the suite when it is laid out (see ../lay-out.ts). */
export const recordings: Readonly<Record<string, string>>;
