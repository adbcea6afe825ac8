/** HTTP requests to the server, and the errors it answers with. */

import { base } from "./address.ts";
import { texts } from "./texts.ts";

/** An error answer in the server's own words; `status` is 0 if the server could not be reached. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** The server's machine-readable reason, or "". */
    readonly reason = "",
  ) {
    super(message);
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Throws `ApiError` unless the answer is a success. */
export async function request(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(base + path, init);
  } catch {
    throw new ApiError(0, texts.errors.unreachable);
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

export async function requestJson<T>(path: string, init?: RequestInit): Promise<T> {
  return (await (await request(path, init)).json()) as T;
}

export async function requestBlob(path: string): Promise<Blob> {
  return (await request(path)).blob();
}

export function json(method: "POST" | "PUT" | "PATCH", value: unknown): RequestInit {
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
}

async function errorOf(response: Response): Promise<ApiError> {
  try {
    const body = (await response.json()) as {
      readonly error?: { readonly message?: string; readonly reason?: string };
    };
    if (body.error?.message) return new ApiError(response.status, body.error.message, body.error.reason);
  } catch {
    // Not one of our own errors: a proxy's page, for example.
  }
  return new ApiError(response.status, texts.errors.status(response.status));
}
